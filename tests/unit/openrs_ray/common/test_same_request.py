"""One guard against going on with other work: names the first difference, both values and the way out."""

import pytest

from openrs_ray.common.same_request import check_same
from openrs_ray.errors import UserError

BEGUN = {"seed": 42, "problems": "f00d", "samples": [1, 2]}


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            BEGUN | {"seed": None},
            "setting seed was 42 when run a began and cannot become null on resume: set it back, or start b",
        ),
        (
            BEGUN | {"problems": "beef", "samples": []},
            "the problems have changed since run a began: restore them, or start b",
        ),
        (
            {"seed": 42, "problems": "f00d"},
            "setting samples was [1, 2] when run a began and cannot become nothing on resume: ",
        ),
        (BEGUN | {"more": True}, "setting more was nothing when run a began and cannot become true on resume: "),
    ],
)
def test_the_first_difference_is_named(now: dict[str, object], sentence: str) -> None:
    check_same(BEGUN, dict(BEGUN), "run a", "start b")
    with pytest.raises(UserError) as error:
        check_same(BEGUN, now, "run a", "start b", {"problems": "the problems"})
    assert str(error.value).startswith(sentence)
