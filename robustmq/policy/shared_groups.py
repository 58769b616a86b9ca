"""Which strategy a shared group has."""

from fnmatch import fnmatchcase

from robustmq.settings.mqtt import MqttShared
from robustmq.settings.topics import Strategy


class SharedGroups:
    """The rules in the order of the file: the first whose pattern fits a group's name holds."""

    def __init__(self, config: MqttShared) -> None:
        self._config = config
        used = {config.strategy, *(rule.strategy for rule in config.groups)}
        self.choose_by_client = "hash_clientid" in used
        """Whether some group has to know who published."""

    def strategy(self, group: bytes) -> Strategy:
        """Return the strategy of a group by its name."""
        name = group.decode()
        for rule in self._config.groups:
            if fnmatchcase(name, rule.name):
                return rule.strategy
        return self._config.strategy
