"""The second stage: measures the runtime and derives its identity.

Source: Caliptra FMC, "Boot flow".
"""

import dataclasses

from endocarp.crypto import selftest
from endocarp.crypto.digest import Buffer, equal, sha384
from endocarp.errors import Refused
from endocarp.rot import dice, kv, tcb
from endocarp.rot.boot import Boot, Event, Stage
from endocarp.rot.dice import Cdi, Validity
from endocarp.rot.kv import KeyVault
from endocarp.rot.pcr import FMC_CURRENT, FMC_JOURNEY, PcrBank
from endocarp.rot.profile import CALIPTRA_2_1_2, Profile
from endocarp.rot.tcb import TcbInfo
from endocarp.wire.handoff import CertificatePair, Handoff, Writer
from endocarp.wire.mailbox import MailboxError, PcrLogId


def run_fmc(handoff: Handoff, vault: KeyVault, runtime: Buffer, profile: Profile = CALIPTRA_2_1_2) -> Handoff:
    """Measure the runtime image, derive its CDI, keys and certificates, and return the table for it.

    `runtime` is the very memory that is executed next. Raises Refused, and wipes the key vault, where the table
    is not ROM's or the image is not the one that ROM verified.
    """
    boot = Boot(Stage.FMC)
    with boot.guard(vault):
        selftest.run(dice.ALGORITHMS)
        _check(handoff, runtime)
        table = _derive(handoff, vault, profile)
    boot.advance(Event.RUNTIME_MEASURED)
    return table


def _check(handoff: Handoff, runtime: Buffer) -> None:
    rule, hint = MailboxError.FMC_HANDOFF_INVALID_PARAM.name, "reset the server"
    if handoff.writer is not Writer.ROM:
        raise Refused(rule, f"the hand-off table was written by {handoff.writer.name}", hint)
    if not equal(sha384(runtime), handoff.runtime_digest):
        raise Refused(rule, "the runtime image is not the one that ROM verified", hint)


def _derive(handoff: Handoff, vault: KeyVault, profile: Profile) -> Handoff:
    bank = PcrBank(handoff.pcrs, handoff.pcr_log)
    bank.measure(PcrLogId.RT_TCI, (FMC_CURRENT, FMC_JOURNEY), handoff.runtime_digest)
    with vault.take(kv.FMC_CDI, Cdi) as fmc, dice.runtime_cdi(fmc, handoff.runtime_digest) as cdi:
        vault.put(kv.RT_CDI, cdi)
        keys = dice.derive_keys(vault, cdi, dice.RT_ALIAS)
    vault.erase(kv.FMC_CDI)
    # deviation: in hardware the FMC alias keys are locked to the engine that signs PCRs; here they stay in the
    # vault, and only the runtime's quote commands use them.
    issuer = dice.authority(
        dice.load_keys(vault, dice.FMC_ALIAS).__getitem__,
        lambda public: dice.name_of(dice.FMC_ALIAS, public, profile),
    )
    component = TcbInfo(
        fwid=handoff.runtime_digest,
        type=profile.runtime_tcb_type.encode(),
        svn=tcb.fixed_svn(handoff.fw_svn),
    )
    rt_alias: CertificatePair = dice.certify(
        dice.RT_ALIAS,
        dice.public_halves(keys),
        issuer,
        ueid=handoff.ueid,
        profile=profile,
        evidence=[tcb.tcb_info(component)],
        validity=Validity.decode(handoff.not_before, handoff.not_after),
    )
    return dataclasses.replace(
        handoff, writer=Writer.FMC, rt_alias=rt_alias, pcrs=bank.values, pcr_log=bank.log
    )
