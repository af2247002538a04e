"""The partitioner of Java clients, from its published definition (Austin Appleby's MurmurHash2, 32 bits, seed 0x9747b28c).

A record with key k lies on partition (murmur2(k) & 0x7fffffff) mod n. Keys only: a null key has no place here.
"""

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The hash as an unsigned 32-bit number; Java shows the same bits signed."""
    h = (SEED ^ len(data)) & MASK
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * MULTIPLIER & MASK
        k = (k ^ k >> 24) * MULTIPLIER & MASK
        h = h * MULTIPLIER & MASK ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * MULTIPLIER & MASK
    h = (h ^ h >> 13) * MULTIPLIER & MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Where a Java client puts this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
