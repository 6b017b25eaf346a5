"""The calls of the token about objects: finding, reading, changing, making and destroying them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from endocarp.errors import PeerError
from endocarp.hsm.mechanisms import KEY_MECHANISMS, PAIR_MECHANISMS, generated_suite
from endocarp.hsm.object_policy import key_class
from endocarp.hsm.token_objects import changed_template, new_template, template_attributes
from endocarp.hsm.token_sessions import Session
from endocarp.hsm.token_view import Handler, Steps, TokenView, ask
from endocarp.wire.cryptoki import CKR
from endocarp.wire.hsm import Description, Destroy, Generate, ObjectClass, Policy, SetAttributes, Template
from endocarp.wire.p11 import Attribute, AttributeRoom, Mechanism
from endocarp.wire.p11_calls import Call, Values

FOUND_LIMIT = 1 << 10
"""The most handles that one C_FindObjects gives."""

NO_TEMPLATE = Template(policy=Policy(0))


def _check_writing(session: Session, *, token_object: bool) -> None:
    if token_object and not session.may_write:
        raise PeerError(CKR.SESSION_READ_ONLY, "the session may not write token objects")


def _mechanism(mechanism: Mechanism | None) -> Mechanism:
    if mechanism is None:
        raise PeerError(CKR.ARGUMENTS_BAD, "the mechanism is NULL")
    return mechanism


# --- looking at objects ---------------------------------------------------------------------------------------


def find_objects_init(view: TokenView, session: int, template: Sequence[Attribute]) -> Steps[Values]:
    """C_FindObjectsInit."""
    search = view.sessions.get(session).search
    search.check_free()
    objects = yield from view.objects()
    search.begin(iter([found.handle for found in objects if found.matches(template)]))
    return ()


def find_objects(view: TokenView, session: int, room: int | None) -> Values:
    """C_FindObjects."""
    search = view.sessions.get(session).search.current()
    if room is None:
        raise PeerError(CKR.ARGUMENTS_BAD, "there is no room for handles")
    return (list(islice(search, min(room, FOUND_LIMIT))),)


def find_objects_final(view: TokenView, session: int) -> Values:
    """C_FindObjectsFinal."""
    search = view.sessions.get(session).search
    search.current()
    search.operation = None
    return ()


def get_attribute_value(view: TokenView, session: int, handle: int, rooms: Sequence[AttributeRoom]) -> Values:
    """C_GetAttributeValue."""
    view.sessions.get(session)
    return view.object(handle).read(rooms)


def get_object_size(view: TokenView, session: int, handle: int) -> Values:
    """C_GetObjectSize: the size of the object's description, as a measure."""
    view.sessions.get(session)
    return (len(view.object(handle).description.encode()),)


# --- changing objects -----------------------------------------------------------------------------------------


def set_attribute_value(
    view: TokenView, session: int, handle: int, template: Sequence[Attribute]
) -> Steps[Values]:
    """C_SetAttributeValue."""
    found = view.sessions.get(session)
    known = view.object(handle)
    _check_writing(found, token_object=known.is_token_object)
    changed = changed_template(known, template_attributes(template))
    view.put((yield from ask(SetAttributes(handle, changed))))
    return ()


def destroy_object(view: TokenView, session: int, handle: int) -> Steps[Values]:
    """C_DestroyObject."""
    found = view.sessions.get(session)
    _check_writing(found, token_object=view.object(handle).is_token_object)
    yield from ask(Destroy(handle))
    view.drop(handle)
    found.objects.discard(handle)
    return ()


def generate_key(
    view: TokenView, session: int, mechanism: Mechanism | None, template: Sequence[Attribute]
) -> Steps[Values]:
    """C_GenerateKey."""
    found = view.sessions.get(session)
    attributes = template_attributes(template)
    suite = generated_suite(KEY_MECHANISMS, _mechanism(mechanism), attributes)
    key = new_template(suite, key_class(suite), attributes)
    (made,) = yield from _generate(view, found, Generate(suite, key, NO_TEMPLATE))
    return (made.handle,)


def generate_key_pair(
    view: TokenView,
    session: int,
    mechanism: Mechanism | None,
    public_template: Sequence[Attribute],
    private_template: Sequence[Attribute],
) -> Steps[Values]:
    """C_GenerateKeyPair."""
    found = view.sessions.get(session)
    public, private = template_attributes(public_template), template_attributes(private_template)
    suite = generated_suite(PAIR_MECHANISMS, _mechanism(mechanism), public)
    request = Generate(
        suite,
        key=new_template(suite, ObjectClass.PRIVATE_KEY, private),
        public=new_template(suite, ObjectClass.PUBLIC_KEY, public),
    )
    made_private, made_public = yield from _generate(view, found, request)
    return made_public.handle, made_private.handle


def _generate(view: TokenView, session: Session, request: Generate) -> Steps[Sequence[Description]]:
    stored = (request.key.policy | request.public.policy) & Policy.TOKEN
    _check_writing(session, token_object=bool(stored))
    made = (yield from ask(request)).objects
    for description in made:
        if not view.put(description).is_token_object:
            session.objects.add(description.handle)
    return made


CALLS: Mapping[Call, Handler] = MappingProxyType(
    {
        Call.C_FindObjectsInit: find_objects_init,
        Call.C_FindObjects: find_objects,
        Call.C_FindObjectsFinal: find_objects_final,
        Call.C_GetAttributeValue: get_attribute_value,
        Call.C_GetObjectSize: get_object_size,
        Call.C_SetAttributeValue: set_attribute_value,
        Call.C_DestroyObject: destroy_object,
        Call.C_GenerateKey: generate_key,
        Call.C_GenerateKeyPair: generate_key_pair,
    }
)
"""The calls of this module."""
