"""Certificate chains, link by link."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from tests.simulators.device import ISSUERS, MODEL, NOW, DeviceSimulator, Plan, key
from tests.simulators.relying import anchor_pem, failed, unreached

from endocarp.crypto import certs
from endocarp.crypto.certs import Certificate, KeyUsage, Name
from endocarp.errors import DecodeError
from endocarp.verifier import chain
from endocarp.verifier.chain import Anchor, Identities
from endocarp.verifier.extensions import MULTI_TCB_INFO, TCB_INFO, UEID
from endocarp.verifier.rules import SUITE_NAMES
from endocarp.verifier.verdict import Ledger, Verdict
from endocarp.wire import der, pem
from endocarp.wire.evidence import CHAIN_ORDER, SUITES
from endocarp.wire.suites import Suite

PLACES = [(place, suite) for suite in SUITES for place in CHAIN_ORDER]
PART = ("anchor.", "chain.")


def examine(
    device: DeviceSimulator,
    anchors: Mapping[str, Anchor] | None = None,
    *,
    now: float = NOW,
    suites: tuple[Suite, ...] = SUITES,
) -> tuple[Identities, Verdict]:
    """Verify the chains of a device against the simulator's root; return what they came to, and the verdict."""
    ledger = Ledger()
    if anchors is None:
        anchors = {MODEL: DeviceSimulator().anchor()}
    identities = chain.verify_chains(ledger, {suite: device.chain(suite) for suite in suites}, anchors, now)
    return identities, ledger.verdict()


def missed(verdict: Verdict) -> set[str]:
    """Return the rules on the two chains that stayed unreached; the partition's certificates are not here."""
    return {rule for rule in unreached(verdict) if rule.startswith(PART) and ".partition." not in rule}


def test_the_chains_of_a_device_hold() -> None:
    identities, verdict = examine(DeviceSimulator())
    assert failed(verdict) == missed(verdict) == set()
    assert {suite: list(found) for suite, found in identities.certificates.items()} == {
        suite: list(CHAIN_ORDER) for suite in SUITES
    }
    assert {anchor.name for anchor in identities.anchors.values()} == {MODEL}
    assert identities.find(Suite.P384, "rt_alias") is not None
    assert identities.find(Suite.P384, "partition") is None
    assert identities.find(Suite.P256, "rt_alias") is None


Edit = Callable[[Plan], Plan]
NO_EXTENSION = certs.extension("1.2.3.4", der.null(), critical=True)

EDITS: dict[str, Edit] = {
    "signature": lambda plan: replace(plan, signer=key("stranger", plan.signer.suite)),
    "issuer": lambda plan: replace(plan, issuer=Name("Somebody else").der()),
    "authority_key": lambda plan: plan.with_extension("authority_key_id", certs.authority_key_id(bytes(20))),
    "validity": lambda plan: replace(plan, not_after="20240101000000Z"),
    "key_usage": lambda plan: plan.with_extension("key_usage", certs.key_usage((KeyUsage.KEY_AGREEMENT,))),
    "purposes": lambda plan: plan.with_extension("purposes", certs.extended_key_usage(["1.2.3"])),
    "critical": lambda plan: plan.with_extension("unknown", NO_EXTENSION),
}


@pytest.mark.parametrize(("place", "suite"), PLACES)
@pytest.mark.parametrize("rule", EDITS)
def test_a_spoilt_certificate_fails_by_its_rule_and_no_other(rule: str, place: str, suite: Suite) -> None:
    device = DeviceSimulator(edits={(place, suite): EDITS[rule]})
    _, verdict = examine(device)
    # The issuer of an IDevID is found by its signature.
    first = place == "idevid" and rule == "signature"
    expected = f"anchor.{rule}" if first else f"chain.{rule}.{place}"
    assert failed(verdict) == {f"{expected}.{SUITE_NAMES[suite]}"}


@pytest.mark.parametrize(("place", "suite"), PLACES)
def test_a_certificate_with_the_name_of_another_place_is_told_apart(place: str, suite: Suite) -> None:
    other = "ldevid" if place != "ldevid" else "fmc_alias"

    def rename(plan: Plan) -> Plan:
        return replace(plan, subject=replace(plan.subject, common_name=device.name(other, suite).common_name))

    device = DeviceSimulator(edits={(place, suite): rename})
    _, verdict = examine(device)
    below = [
        f"chain.issuer.{role}" for role, issuer in ISSUERS.items() if issuer == place and role != "partition"
    ]
    assert failed(verdict) == {f"{rule}.{SUITE_NAMES[suite]}" for rule in (f"chain.name.{place}", *below)}


@pytest.mark.parametrize("place", CHAIN_ORDER)
def test_the_serial_number_in_a_name_is_that_of_the_key(place: str) -> None:
    device = DeviceSimulator()
    device.edits[place, Suite.P384] = lambda plan: replace(
        plan, subject=replace(plan.subject, serial_number="00" * 32)
    )
    assert f"chain.name.{place}.ecc384" in failed(examine(device)[1])


@pytest.mark.parametrize(
    ("place", "length"), [("idevid", 2), ("ldevid", 1), ("fmc_alias", 0), ("rt_alias", None), ("dpe_leaf", 0)]
)
@pytest.mark.parametrize("suite", SUITES)
def test_an_authority_has_room_for_what_stands_below_it_and_a_leaf_is_none(
    place: str, length: int | None, suite: Suite
) -> None:
    device = DeviceSimulator()
    device.edits[place, suite] = lambda plan: plan.with_extension(
        "constraints", certs.basic_constraints(length)
    )
    assert failed(examine(device)[1]) == {f"chain.constraints.{place}.{SUITE_NAMES[suite]}"}


def test_an_authority_without_a_limit_is_refused() -> None:
    device = DeviceSimulator()
    unlimited = certs.extension("2.5.29.19", der.sequence(der.boolean(value=True)), critical=True)
    device.edits["rt_alias", Suite.P384] = lambda plan: plan.with_extension("constraints", unlimited)
    assert failed(examine(device)[1]) == {"chain.constraints.rt_alias.ecc384"}


def test_without_a_subject_key_id_above_the_usual_one_is_expected() -> None:
    device = DeviceSimulator()
    device.edits["ldevid", Suite.P384] = lambda plan: plan.without("subject_key_id")
    assert failed(examine(device)[1]) == set()
    device.edits["fmc_alias", Suite.P384] = lambda plan: plan.without("authority_key_id")
    assert failed(examine(device)[1]) == {"chain.authority_key.fmc_alias.ecc384"}


@pytest.mark.parametrize(("place", "suite"), PLACES)
def test_a_certificate_that_cannot_be_read_leaves_the_rules_on_its_neighbours_unreached(
    place: str, suite: Suite
) -> None:
    device, name = DeviceSimulator(), SUITE_NAMES[suite]
    spoilt = replace(device.chain(suite), **{place: b"no certificate"})
    ledger = Ledger()
    chains = {one: device.chain(one) for one in SUITES} | {suite: spoilt}
    identities = chain.verify_chains(ledger, chains, {MODEL: device.anchor()}, NOW)
    verdict = ledger.verdict()
    assert failed(verdict) == {f"chain.decode.{place}.{name}"}
    assert f"chain.validity.{place}.{name}" in missed(verdict)
    if place == "idevid":
        assert f"anchor.signature.{name}" in missed(verdict)
    if place != "dpe_leaf":
        below = CHAIN_ORDER[CHAIN_ORDER.index(place) + 1]
        assert f"chain.signature.{below}.{name}" in missed(verdict)
        assert f"chain.validity.{below}.{name}" not in missed(verdict)
    assert identities.find(suite, place) is None


def test_an_extension_of_another_form_is_found_when_the_certificate_is_read() -> None:
    device = DeviceSimulator()
    device.edits["rt_alias", Suite.P384] = lambda plan: plan.with_extension(
        "key_usage", certs.extension("2.5.29.15", der.null(), critical=True)
    )
    assert failed(examine(device)[1]) == {"chain.decode.rt_alias.ecc384"}


@pytest.mark.parametrize("suite", SUITES)
def test_both_suites_are_needed(suite: Suite) -> None:
    _, verdict = examine(DeviceSimulator(), suites=(suite,))
    other = next(SUITE_NAMES[one] for one in SUITES if one is not suite)
    assert failed(verdict) == {f"chain.present.{other}"}
    assert "anchor.same" in missed(verdict)


def test_without_any_chain_there_is_nothing_to_hold() -> None:
    identities, verdict = examine(DeviceSimulator(), suites=())
    assert failed(verdict) == {"chain.present.ecc384", "chain.present.ml_dsa_87"}
    assert "chain.device" in missed(verdict)
    assert identities.anchors == {}


def test_swapped_suites_are_told_apart() -> None:
    device, ledger = DeviceSimulator(), Ledger()
    swapped = {Suite.P384: device.chain(Suite.ML_DSA_87), Suite.ML_DSA_87: device.chain(Suite.P384)}
    chain.verify_chains(ledger, swapped, {MODEL: device.anchor()}, NOW)
    names = SUITE_NAMES.values()
    assert failed(ledger.verdict()) == {
        *(f"chain.suite.{place}.{name}" for place in CHAIN_ORDER for name in names),
        *(f"chain.name.{place}.{name}" for place in CHAIN_ORDER if place != "dpe_leaf" for name in names),
        *(f"anchor.signature.{name}" for name in names),
    }


@pytest.mark.parametrize(("place", "suite"), PLACES)
def test_a_key_of_another_suite_is_told_apart(place: str, suite: Suite) -> None:
    other = next(one for one in SUITES if one is not suite)
    device = DeviceSimulator()
    device.edits[place, suite] = lambda plan: replace(plan, public=key(place, other).public)
    assert f"chain.suite.{place}.{SUITE_NAMES[suite]}" in failed(examine(device)[1])


def test_a_certificate_without_purposes_has_none() -> None:
    device = DeviceSimulator()
    device.edits["fmc_alias", Suite.P384] = lambda plan: plan.without("purposes")
    assert failed(examine(device)[1]) == {"chain.purposes.fmc_alias.ecc384"}


@pytest.mark.parametrize(
    ("place", "oid", "rules"),
    [
        ("fmc_alias", MULTI_TCB_INFO, set()),
        ("rt_alias", TCB_INFO, set()),
        ("rt_alias", MULTI_TCB_INFO, {"chain.critical.rt_alias.ecc384"}),
        ("ldevid", TCB_INFO, {"chain.critical.ldevid.ecc384"}),
    ],
)
def test_what_was_measured_may_be_critical_only_where_it_is_looked_at(
    place: str, oid: str, rules: set[str]
) -> None:
    device = DeviceSimulator()
    critical = certs.extension(oid, der.sequence(), critical=True)
    device.edits[place, Suite.P384] = lambda plan: plan.with_extension("tcb", critical)
    assert failed(examine(device)[1]) == rules


# --- devices --------------------------------------------------------------------------------------------------


def test_the_two_chains_speak_of_one_device() -> None:
    one, other = DeviceSimulator(), DeviceSimulator(ueid=bytes(17))
    ledger = Ledger()
    chains = {Suite.P384: one.chain(Suite.P384), Suite.ML_DSA_87: other.chain(Suite.ML_DSA_87)}
    chain.verify_chains(ledger, chains, {MODEL: one.anchor()}, NOW)
    assert failed(ledger.verdict()) == {"chain.device"}


@pytest.mark.parametrize("octets", [b"", der.sequence()])
def test_every_certificate_says_of_which_device_it_is(octets: bytes) -> None:
    device = DeviceSimulator()
    extension = certs.extension(UEID, octets) if octets else b""
    device.edits["fmc_alias", Suite.P384] = lambda plan: plan.with_extension("ueid", extension)
    _, verdict = examine(device)
    assert failed(verdict) == {"chain.device"}
    assert "without a UEID: fmc_alias.ecc384" in verdict.failures[0].reason


# --- anchors --------------------------------------------------------------------------------------------------


def foreign_anchor(name: str, *, root: str = "stranger", common_name: str | None = None) -> Anchor:
    """Return an anchor with the key of another role."""
    return Anchor(
        name,
        {
            suite: Certificate.parse(certs.self_signed_ca(Name(common_name or name), key(root, suite)))
            for suite in SUITES
        },
    )


def test_nothing_is_trusted_that_no_given_anchor_signed() -> None:
    stranger = foreign_anchor("MODEL-other")
    for anchors in ({}, {stranger.name: stranger}):
        identities, verdict = examine(DeviceSimulator(), anchors)
        assert failed(verdict) == {"anchor.signature.ecc384", "anchor.signature.ml_dsa_87"}
        assert {"anchor.same", "anchor.model", "chain.issuer.idevid.ecc384"} <= missed(verdict)
        assert identities.anchors == {}


def test_one_chain_a_root_is_not_enough() -> None:
    real, stranger = DeviceSimulator().anchor(), foreign_anchor("MODEL-other")
    halves = {
        "MODEL-other": Anchor(
            "MODEL-other",
            {
                Suite.P384: stranger.certificates[Suite.P384],
                Suite.ML_DSA_87: real.certificates[Suite.ML_DSA_87],
            },
        ),
        MODEL: Anchor(
            MODEL,
            {
                Suite.P384: real.certificates[Suite.P384],
                Suite.ML_DSA_87: stranger.certificates[Suite.ML_DSA_87],
            },
        ),
    }
    assert "anchor.same" in failed(examine(DeviceSimulator(), halves)[1])


def test_a_model_root_is_accepted_by_its_own_name_only() -> None:
    disguised = replace(DeviceSimulator().anchor(), name="production")
    _, verdict = examine(DeviceSimulator(), {"production": disguised})
    assert failed(verdict) == {"anchor.model"}
    assert verdict.failures[0].reason == "MODEL-test is a model root, given under the name production"


def test_a_model_root_that_was_given_twice_goes_by_its_own_name() -> None:
    anchor = DeviceSimulator().anchor()
    identities, verdict = examine(
        DeviceSimulator(), {"a": replace(anchor, name="a"), MODEL: anchor, "z": replace(anchor, name="z")}
    )
    assert failed(verdict) == set()
    assert identities.anchors[Suite.P384].name == MODEL


def test_a_root_that_is_no_model_may_have_any_name() -> None:
    device = DeviceSimulator(model="Real Root")
    anchor = replace(device.anchor(), name="ours")
    identities, verdict = examine(device, {"ours": anchor})
    assert failed(verdict) == set()
    assert identities.anchors[Suite.P384].model == ""


@pytest.mark.parametrize("suite", SUITES)
def test_an_anchor_has_its_dates_and_its_limits_too(suite: Suite) -> None:
    device = DeviceSimulator()
    anchor = device.anchor()
    plan = Plan(
        issuer=Name(MODEL).der(),
        subject=Name(MODEL),
        public=device.key("root", suite).public,
        signer=device.key("root", suite),
        extensions={
            "constraints": certs.basic_constraints(3),
            "id": certs.subject_key_id(certs.key_id(device.key("root", suite).public)),
        },
        not_after="20240101000000Z",
    )
    spoilt = replace(anchor, certificates={**anchor.certificates, suite: Certificate.parse(plan.issue())})
    name = SUITE_NAMES[suite]
    assert failed(examine(device, {MODEL: spoilt})[1]) == {
        f"anchor.validity.{name}",
        f"anchor.constraints.{name}",
    }


def test_dates_are_compared_with_the_moment_that_was_given() -> None:
    for now in (0.0, 1.6e9):
        _, verdict = examine(DeviceSimulator(), now=now)
        assert failed(verdict) == {
            *(f"chain.validity.{place}.{SUITE_NAMES[suite]}" for place, suite in PLACES),
            *(f"anchor.validity.{name}" for name in SUITE_NAMES.values()),
        }


def test_a_moment_is_written_as_certificates_do() -> None:
    assert chain.stamp(0) == "19700101000000Z"
    assert chain.stamp(NOW) == "20270115080000Z"


def test_an_anchor_survives_its_file() -> None:
    anchor = DeviceSimulator().anchor()
    assert Anchor.from_pem(MODEL, anchor_pem(anchor)) == anchor
    assert Anchor.from_pem(MODEL, "about this root\n" + anchor_pem(anchor)) == anchor


def test_an_anchor_file_holds_one_certificate_a_suite() -> None:
    anchor = DeviceSimulator().anchor()
    ecc, mldsa = (pem.encode(pem.CERTIFICATE, anchor.certificates[suite].der) for suite in SUITES)
    for text in (ecc, ecc + ecc, ecc + mldsa + mldsa):
        with pytest.raises(DecodeError, match="one certificate in P-384"):
            Anchor.from_pem(MODEL, text)
    with pytest.raises(DecodeError):
        Anchor.from_pem(MODEL, pem.encode(pem.CERTIFICATE, b"no certificate"))


def test_an_anchor_is_read_whole_when_its_file_is() -> None:
    device = DeviceSimulator()
    device.edits["idevid", Suite.P384] = lambda plan: plan.with_extension(
        "key_usage", certs.extension("2.5.29.15", der.null())
    )
    text = pem.encode(pem.CERTIFICATE, device.certificate("idevid", Suite.P384))
    with pytest.raises(DecodeError):
        Anchor.from_pem(MODEL, text)
