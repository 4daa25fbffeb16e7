"""The main job: a recipe's things, the run folder, the stages in their order."""
