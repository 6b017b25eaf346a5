"""The identifiers of rules."""

import re

from endocarp.verifier.rules import ANCHORED, CERTIFICATES, IMAGES, RULES, SECTIONS, SUITE_NAMES, section_of


def test_identifiers_are_short_and_of_one_form() -> None:
    form = re.compile(r"[a-z]+(\.[a-z0-9_]+){1,3}")
    assert [rule for rule in RULES if not form.fullmatch(rule) or len(rule) > 48] == []


def test_every_rule_belongs_to_a_section_and_every_section_has_rules() -> None:
    assert {section_of(rule) for rule in RULES} == set(SECTIONS)


def test_every_rule_says_something_of_its_own() -> None:
    sentences = [rule.sentence for rule in RULES.values()]
    assert len(set(sentences)) == len(sentences)


def test_what_is_there_in_both_suites_has_a_rule_in_both() -> None:
    ecc, mldsa = ([rule for rule in RULES if rule.endswith(f".{name}")] for name in SUITE_NAMES.values())
    assert len(ecc) == len(mldsa) > 0
    assert {rule.removesuffix(".ecc384") for rule in ecc} == {
        rule.removesuffix(".ml_dsa_87") for rule in mldsa
    }


def test_every_certificate_has_the_same_rules_but_the_one_that_an_anchor_signs() -> None:
    places = {place: {rule for rule in RULES if f".{place}." in rule} for place in CERTIFICATES}
    assert {place: len(rules) for place, rules in places.items() if place != "idevid"} == dict.fromkeys(
        [place for place in CERTIFICATES if place != "idevid"], 22
    )
    assert {rule.replace("idevid", "ldevid") for rule in places["idevid"]} == {
        rule for rule in places["ldevid"] if not rule.startswith(ANCHORED[0])
    }


def test_identifiers_that_others_rely_on_stay() -> None:
    assert {
        "chain.signature.fmc_alias.ecc384",
        "envelope.signature.ml_dsa_87",
        "nonce.challenge",
        "log.pcr0",
        "log.pcr31",
        "anchor.model",
        *(f"image.{image}.reference" for image in (*IMAGES, "fmc", "runtime", "rom", "manifest")),
    } <= set(RULES)


def test_what_compares_with_references_is_marked() -> None:
    assert all(rule.compared for name, rule in RULES.items() if name.endswith(".reference"))
    assert RULES["nonce.challenge"].compared
    assert RULES["anchor.signature.ecc384"].compared
    assert RULES["policy.svn"].compared
