"""Seeds derived from a purpose, so that no two draws share a random stream and none depends on what was drawn before it.

Owns the derivation only; whoever draws makes its own generator. The library never seeds globally.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Return the 63-bit seed of the random stream named by (seed, purpose, indices).

    Equal arguments give equal seeds in every process and Python version; different ones give unrelated seeds.
    Example: `torch.Generator().manual_seed(derive_seed(run.seed, "shuffle", epoch))`.
    """
    # Fields are joined by a separator that no number contains and the purpose goes last, so no two argument lists share a text.
    text = ",".join(map(str, (seed, *indices))) + ":" + purpose
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
