"""What a user can mend is one kind of error, and every error tells in one line."""

import pytest

from nmt import errors

MENDABLE = [
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DownloadError",
    "LostError",
    "ModelError",
    "OutputError",
    "RecipeError",
    "TrainingError",
]


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(name for name in vars(errors) if not name.startswith("_")) == sorted([*MENDABLE, "NmtError"])


@pytest.mark.parametrize("name", MENDABLE)
def test_every_error_stands_directly_under_the_one_base(name: str) -> None:
    assert getattr(errors, name).__bases__ == (errors.NmtError,)


@pytest.mark.parametrize("name", MENDABLE)
def test_every_error_is_in_the_drawn_tree(name: str) -> None:
    assert f"── {name} " in (errors.NmtError.__doc__ or "")
