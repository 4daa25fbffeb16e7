"""Judges that are a rubric in the hands of any capable model: local, or behind a server.

    rubric with {request} and {response} → grader → the fields the rubric asks for

`holdfast-rubric` is in our own words. The published rubrics (StrongREJECT, the 1-5 policy rubric of
P2, XSTest's three-way prompt, OR-Bench's) are shells: label schemes without the prompt.
"""

from __future__ import annotations

from holdfast.files import digest
from holdfast.judges._grader import GraderJudge
from holdfast.judges._model_judge import filled, without_marks
from holdfast.types import Attempt, Message, Prompt


class RubricJudge(GraderJudge):
    """A judge whose model is told what to look for."""

    def prompt(self, attempt: Attempt) -> Prompt:
        """The rubric with the request and the answer in their places.

        Both are what somebody else wrote: `{fence}` in the rubric is a mark around them that
        neither contains, so that an answer cannot pretend to end and grade itself.
        """
        tokenizer = getattr(self.engine(), "tokenizer", None)
        request = without_marks(attempt.request, tokenizer)
        response = without_marks(attempt.prefill + attempt.response, tokenizer)
        fence = f"[{digest(request, response)}]"
        values = {"request": request, "response": response, "fence": fence}
        text = filled(self.grading_prompt() or "{response}", values)
        return Prompt((Message.of("user", text),), raw=self.sheet.raw)
