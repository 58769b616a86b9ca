"""The lists of the configuration that say who may not connect, and how much may be published."""

from pathlib import Path

import pytest

from robustmq.config import load
from robustmq.errors import ConfigError
from robustmq.settings.limits import Ban, PublishLimit
from tests.unit.settings import NOTHING, written

LISTS = """
[[blacklist]]
blacklist_type = "IPCIDR"
resource_name = "10.0.0.0/8"
[[publish_limits]]
filter = "a/#"
max_publish_rate = 5
"""


def test_bans_and_publish_limits_are_lists_of_tables(tmp_path: Path) -> None:
    config = load(written(tmp_path, LISTS), (), NOTHING)
    assert config.blacklist == (Ban(blacklist_type="IPCIDR", resource_name="10.0.0.0/8"),)
    assert config.publish_limits == (PublishLimit(filter="a/#", max_publish_rate=5),)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("10.0.0.0/8", "10.0.0.1/8", "is not what IPCIDR needs"),
        ("IPCIDR", "Dog", "expected ClientId or"),
        ("a/#", "a/#/b", "is no topic filter"),
    ],
)
def test_a_wrong_ban_or_limit_is_refused(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(written(tmp_path, LISTS.replace(right, wrong)), (), NOTHING)
