"""From questions to a verdict: what is asked, what answers are worth, what they decide."""
