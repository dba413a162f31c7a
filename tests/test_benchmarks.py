"""The benchmark commands run and say what they measured; that their figures are good is not a test's to say."""

import json
from pathlib import Path
from statistics import median

import pytest

from launch.benchmarks import rewards


def test_reward_checks(tmp_path: Path) -> None:
    golds = [r"\frac{1}{2}", r"\sqrt{2}", "x^2+1", r"\pi", "(1, 2)", r"[0, \infty)"]
    file, written = tmp_path / "problems.jsonl", tmp_path / "figures.json"
    file.write_text("".join(json.dumps({"answer": gold}) + "\n" for gold in golds))
    arguments = [str(file), "--rounds", "2", "--json", str(written)]
    assert rewards.main(arguments) == 0
    content = json.loads(written.read_text())
    assert content["settings"]["checks"] == 12 and content["machine"]["versions"]["torch"]
    alone, pool, ratio, later = content["figures"]
    assert ratio["values"] == pytest.approx([p / (2 * a) for p, a in zip(pool["values"], alone["values"], strict=True)])
    assert ratio["median"] == median(ratio["values"])
    assert len(later["values"]) == 2 and max(later["values"]) < rewards.DEADLINE_S, "the others waited for the poison"


@pytest.mark.parametrize("column", ["answer", "nothing"])
def test_a_wrong_file_or_column_is_exit_code_2(tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "problems.jsonl"
    if column == "nothing":
        file.write_text('{"answer": "1"}\n')
    with pytest.raises(SystemExit) as ended:
        rewards.main([str(file), "--column", column])
    assert ended.value.code == 2
    assert f"cannot read {file}" in capsys.readouterr().err
