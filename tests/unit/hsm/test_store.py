"""The sealed store: what was appended is read again; what was changed, torn or meant for another one is told apart."""

import errno
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from tests.simulators.disk import Disk

from endocarp.crypto.secret import Secret
from endocarp.errors import Refused
from endocarp.hsm.store import GROWTH_LIMIT, RECORD_LIMIT, Store

HEADER = 8 + 2 + 4 + 32
HEAD = 4 + 16
TAG = 16
SECTOR = 512


def counting() -> Callable[[int], bytes]:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


@pytest.fixture
def seal_key() -> Iterator[Secret]:
    with Secret(bytes(range(32))) as key:
        yield key


def opened(
    disk: Disk, key: Secret, partition: int = 0, entropy: Callable[[int], bytes] | None = None
) -> Store:
    return Store(disk, key, partition, entropy or counting())


def written(key: Secret, *records: bytes) -> Disk:
    """Return a disk on which the first record was written when the file was begun, the others one by one."""
    disk = Disk()
    store = opened(disk, key)
    store.begin(lambda: records[:1])
    for record in records[1:]:
        store.append(record)
    return disk


def test_a_new_store_has_no_records(seal_key: Secret) -> None:
    store = opened(Disk(), seal_key)
    assert store.is_new
    assert store.take_records() == []


def test_what_was_appended_is_read_in_its_order(seal_key: Secret) -> None:
    disk = written(seal_key, b"one", b"", b"three" * 1000)
    store = opened(disk, seal_key)
    assert not store.is_new
    assert store.take_records() == [b"one", b"", b"three" * 1000]
    assert store.torn == 0


def test_nothing_of_a_record_stands_in_the_clear(seal_key: Secret) -> None:
    assert b"three" not in written(seal_key, b"one", b"three").octets


def test_each_file_has_a_key_of_its_own(seal_key: Secret) -> None:
    first = written(seal_key, b"one", b"two")
    second = Disk(first.octets)
    store = opened(second, seal_key, entropy=bytes)
    store.begin(store.take_records)
    assert opened(second, seal_key).take_records() == [b"one", b"two"]
    assert first.octets[HEADER:] != second.octets[HEADER:]


def test_a_store_sealed_with_another_key_is_refused(seal_key: Secret) -> None:
    disk = written(seal_key, b"one")
    with Secret(bytes(32)) as other, pytest.raises(Refused, match="record 0 of the sealed store was changed"):
        opened(disk, other)


def test_the_store_of_another_partition_is_refused(seal_key: Secret) -> None:
    disk = written(seal_key, b"one")
    with pytest.raises(Refused, match="belongs to partition 0, not 7") as caught:
        opened(disk, seal_key, partition=7)
    assert caught.value.rule == "store-partition"


def test_a_store_moved_to_another_partition_is_refused(seal_key: Secret) -> None:
    octets = bytearray(written(seal_key, b"one").octets)
    octets[10] = 7
    with pytest.raises(Refused) as caught:
        opened(Disk(bytes(octets)), seal_key, partition=7)
    assert caught.value.rule == "store-record"


@pytest.mark.parametrize("size", [1, HEADER - 1])
def test_a_file_without_its_header_is_refused(seal_key: Secret, size: int) -> None:
    with pytest.raises(Refused) as caught:
        opened(Disk(written(seal_key, b"one").octets[:size]), seal_key)
    assert caught.value.rule == "store-header"


def test_every_changed_bit_is_refused(seal_key: Secret) -> None:
    octets = written(seal_key, b"one", b"two", b"three").octets
    for at in range(len(octets)):
        for bit in range(8):
            changed = bytearray(octets)
            changed[at] ^= 1 << bit
            with pytest.raises(Refused):
                opened(Disk(bytes(changed)), seal_key)


def test_a_record_that_was_taken_out_is_refused(seal_key: Secret) -> None:
    octets = written(seal_key, b"one", b"two", b"three").octets
    start = HEADER + HEAD + len(b"one") + TAG
    end = start + HEAD + len(b"two") + TAG
    with pytest.raises(Refused, match="record 1"):
        opened(Disk(octets[:start] + octets[end:]), seal_key)


def test_a_record_that_was_doubled_is_refused(seal_key: Secret) -> None:
    octets = written(seal_key, b"one", b"two").octets
    start = HEADER + HEAD + len(b"one") + TAG
    with pytest.raises(Refused, match="record 2"):
        opened(Disk(octets + octets[start:]), seal_key)


def test_a_last_record_shorter_than_declared_is_cut_and_told(seal_key: Secret) -> None:
    whole = written(seal_key, b"one", b"two").octets
    kept = len(whole) - HEAD - len(b"two") - TAG
    for size in range(kept + 1, len(whole)):
        store = opened(Disk(whole[:size]), seal_key)
        assert store.take_records() == [b"one"]
        assert store.torn == size - kept


def test_an_all_zero_tail_is_cut_and_told(seal_key: Secret) -> None:
    whole = written(seal_key, b"one", b"two").octets
    kept = len(whole) - HEAD - len(b"two") - TAG
    # The file has its full length, or more, but the octets from `size` on were never written.
    for size in [kept, kept + 4, kept + HEAD, len(whole) - TAG]:
        for beyond in (0, 1, HEAD, 4096):
            octets = whole[:size] + bytes(len(whole) - size + beyond)
            store = opened(Disk(octets), seal_key)
            assert store.take_records() == [b"one"]
            assert store.torn == len(octets) - kept


def test_sectors_that_were_never_written_are_cut_wherever_a_record_stands_in_them(seal_key: Secret) -> None:
    for filler in range(SECTOR):
        whole = written(seal_key, bytes(filler), bytes(SECTOR)).octets
        kept = len(whole) - HEAD - SECTOR - TAG
        for written_to in range(-(-kept // SECTOR) * SECTOR, len(whole), SECTOR):
            store = opened(Disk(whole[:written_to] + bytes(len(whole) - written_to)), seal_key)
            assert store.take_records() == [bytes(filler)]
            assert store.torn == len(whole) - kept


def test_zeros_that_begin_within_a_tag_and_a_sector_are_refused(seal_key: Secret) -> None:
    whole = written(seal_key, b"one", b"two").octets
    assert len(whole) < SECTOR
    for zeros in range(1, TAG):
        with pytest.raises(Refused):
            opened(Disk(whole[:-zeros] + bytes(zeros)), seal_key)


def test_zeros_behind_a_whole_record_are_cut(seal_key: Secret) -> None:
    whole = written(seal_key, b"one").octets
    assert opened(Disk(whole + bytes(4096)), seal_key).take_records() == [b"one"]


def test_a_full_record_with_a_bad_tag_is_refused(seal_key: Secret) -> None:
    whole = written(seal_key, b"one", b"two").octets
    with pytest.raises(Refused) as caught:
        opened(Disk(whole[:-1] + bytes([whole[-1] ^ 1])), seal_key)
    assert caught.value.rule == "store-record"


def test_zeros_in_the_middle_are_refused(seal_key: Secret) -> None:
    whole = written(seal_key, b"one", b"two", b"three").octets
    start = HEADER + HEAD + len(b"one") + TAG
    end = start + HEAD + len(b"two") + TAG
    with pytest.raises(Refused):
        opened(Disk(whole[:start] + bytes(end - start) + whole[end:]), seal_key)


def test_a_record_that_is_too_long_is_refused_and_the_store_goes_on(seal_key: Secret) -> None:
    disk = written(seal_key, b"one")
    store = opened(disk, seal_key)
    store.begin(store.take_records)
    store.append(bytes(RECORD_LIMIT - TAG))
    with pytest.raises(Refused) as caught:
        store.append(bytes(RECORD_LIMIT - TAG + 1))
    assert caught.value.rule == "store-full"
    store.append(b"two")
    assert opened(disk, seal_key).take_records()[-1] == b"two"


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        (errno.ENOSPC, "store-full"),
        (errno.EDQUOT, "store-full"),
        (errno.EFBIG, "store-full"),
        (errno.EIO, "store-failed"),
        (errno.EROFS, "store-failed"),
    ],
)
def test_a_failed_append_leaves_the_store_as_it_was(seal_key: Secret, number: int, rule: str) -> None:
    disk = written(seal_key, b"one")
    records = [b"one"]
    store = opened(disk, seal_key)
    store.begin(lambda: records)
    before = disk.octets
    for disk.kept in (0, 1, HEAD, 1000):
        disk.fault = OSError(number, "fault")
        with pytest.raises(Refused) as caught:
            store.append(b"two")
        assert caught.value.rule == rule
        assert disk.octets == before
        assert opened(disk, seal_key).take_records() == [b"one"]
    disk.fault = None
    store.append(b"three")
    assert opened(disk, seal_key).take_records() == [b"one", b"three"]


def test_the_records_that_were_read_are_given_once(seal_key: Secret) -> None:
    store = opened(written(seal_key, b"one"), seal_key)
    assert store.take_records() == [b"one"]
    assert store.take_records() == []


@pytest.mark.parametrize("begun_anew", [False, True])
def test_what_a_disk_that_fails_twice_has_kept_is_gone_with_the_next_record(
    seal_key: Secret, *, begun_anew: bool
) -> None:
    disk = written(seal_key, b"one")
    store = opened(disk, seal_key)
    records = [b"one"]
    store.begin(lambda: records)
    disk.fault, disk.kept, disk.cuts, disk.late = OSError(errno.EIO, "fault"), 0, True, True
    if begun_anew:
        with pytest.raises(Refused):
            store.append(b"zero")
    else:
        disk.kept, disk.cuts = 1000, False
    with pytest.raises(Refused):
        store.append(b"two")
    # It was refused, and a start that comes now would find it.
    assert opened(disk, seal_key).take_records() == [b"one", b"two"]
    disk.fault = None
    store.append(b"three")
    assert opened(disk, seal_key).take_records() == [b"one", b"three"]


def test_a_nonce_is_not_used_again_after_a_failed_append(seal_key: Secret) -> None:
    disk = Disk()
    store = opened(disk, seal_key)
    store.begin(lambda: [b"one"])
    disk.fault, disk.kept, disk.cuts = OSError(errno.ENOSPC, "full"), 1000, False
    with pytest.raises(Refused):
        store.append(b"two")
    leaked = disk.octets
    disk.fault = None
    store.append(b"owt")
    # Another salt, so another key: what an append that failed left on the disk says nothing about what came after.
    assert disk.octets[:HEADER] != leaked[:HEADER]
    assert opened(disk, seal_key).take_records() == [b"one", b"owt"]


def test_a_log_that_has_grown_is_begun_anew(seal_key: Secret) -> None:
    disk = Disk()
    store = opened(disk, seal_key)
    store.begin(lambda: [b"state"])
    for _ in range(10):
        store.append(bytes(GROWTH_LIMIT // 4))
    assert disk.replaced > 1
    assert len(disk.octets) < 2 * GROWTH_LIMIT
    assert opened(disk, seal_key).take_records()[0] == b"state"


def test_a_store_that_cannot_be_begun_is_refused(seal_key: Secret) -> None:
    disk = Disk()
    disk.fault = OSError(errno.EACCES, "permission denied")
    store = opened(disk, seal_key)
    with pytest.raises(Refused, match="permission denied"):
        store.begin(lambda: [b"one"])
    disk.fault = None
    store.append(b"two")
    assert opened(disk, seal_key).take_records() == [b"one", b"two"]


def test_a_store_that_cannot_be_read_is_refused(seal_key: Secret) -> None:
    disk = Disk()
    disk.unreadable = OSError(errno.EACCES, "permission denied")
    with pytest.raises(Refused, match="the sealed store cannot be used: permission denied") as caught:
        opened(disk, seal_key)
    assert caught.value.rule == "store-failed"
