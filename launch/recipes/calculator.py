"""The environment of calculator.yaml: a calculator for sums."""

import re


class Calculator:
    """Answers a turn such as "347+708=" with the sum; any other turn is the model's last."""

    def reply(self, messages: list[dict[str, str]]) -> str | None:
        asked = re.fullmatch(r"(\d{1,9})\+(\d{1,9})=", messages[-1]["content"])
        return str(int(asked[1]) + int(asked[2])) if asked else None
