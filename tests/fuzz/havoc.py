"""Runs the targets: one guided by coverage where atheris is installed, else a seeded mutator.

    python -m tests.fuzz.havoc TARGET|all SECONDS [--seed N]

`all` is the mutator for every target in turn.

An input that breaks a law is written into the target's corpus, from where every later run and
the test suite take it.
"""

import argparse
import hashlib
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
LARGEST: Final = 4_096
"""Bytes of the largest input that is tried."""

_INTERESTING: Final = (0, 1, 2, 0x7F, 0x80, 0x81, 0xC0, 0xED, 0xEF, 0xFE, 0xFF)


def found(name: str) -> list[bytes]:
    """Return the inputs that were found for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Return `data` with a few random changes."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(out))
        match chance.randint(0, 6):
            case 0 if out:
                out[at % len(out)] ^= 1 << chance.randint(0, 7)
            case 1 if out:
                out[at % len(out)] = chance.choice(_INTERESTING)
            case 2:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del out[at : at + chance.randint(1, 8)]
            case 4:
                other = chance.choice(others)
                cut = chance.randint(0, len(other))
                out[at:at] = other[cut : cut + chance.randint(1, 40)]
            case 5:
                out[at:at] = out[at : at + chance.randint(1, 40)]
            case _ if out:
                out[at % len(out)] = chance.randint(0, 255)
    return bytes(out[:LARGEST])


def havoc(
    target: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, seed: int
) -> int:
    """Try mutations of the seeds for a while; return how many were tried."""
    chance = random.Random(seed)
    pool = [*seeds, b""]
    end = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < end:
        target(mutated(chance.choice(pool), chance, pool))
        tried += 1
    return tried


def keep(name: str, data: bytes) -> Path:
    """Write an input that broke a law into the corpus."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def _guarded(name: str, target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            target(data)
        except Exception:
            print(f"{name} is broken by {keep(name, data)}: {data!r}", file=sys.stderr)
            raise

    return run


def _guided(name: str, seconds: int, seed: int) -> None:
    """Let atheris choose the inputs, by what they reach. It never returns."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["robustmq"]):
        from tests.fuzz.targets import SEEDS, TARGETS
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, data in enumerate([*SEEDS[name], *found(name)]):
        (folder / f"{number}").write_bytes(data)
    limits = f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LARGEST}"
    bounds = "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"
    atheris.Setup([sys.argv[0], *limits, *bounds, str(folder)], _guarded(name, TARGETS[name]))
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    """Run one target or all of them; return the status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("target")
    parser.add_argument("seconds", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is not None and given.target != "all":
        _guided(given.target, given.seconds, given.seed)
    from tests.fuzz.targets import SEEDS, TARGETS

    names = sorted(TARGETS) if given.target == "all" else [given.target]
    for name in names:
        seeds = [*SEEDS[name], *found(name)]
        tried = havoc(_guarded(name, TARGETS[name]), seeds, given.seconds / len(names), given.seed)
        print(f"{name}: {tried} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
