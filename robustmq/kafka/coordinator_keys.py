"""Under which keys coordinators are found, and keep their pages."""


def group_key(tenant: str, group_id: str) -> str:
    """The key of a consumer group's coordinator, and of its page in the ledger."""
    return f"group/{tenant}/{group_id}"


def transaction_key(tenant: str, transactional_id: str) -> str:
    """The key of a transactional id's coordinator, and of its page in the ledger."""
    return f"txn/{tenant}/{transactional_id}"
