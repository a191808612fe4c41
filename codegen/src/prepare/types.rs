//! Types that the stock generator does not know, or of which it makes less than is possible.
//!
//! | in the schema | what the stock generator is given | what the code has in the end |
//! | --- | --- | --- |
//! | `Capability`, as the type of a field (without the annotation `option`) | an interface, [`CAPABILITY`] | `::capnp_threads::Client` |
//! | `List(Capability)` | a list of that | `::capnp::capability_list` of `::capnp_threads::Client` |
//! | `List(AnyPointer)`, `List(AnyList)` | a list of an interface, [`ANY_POINTER`] | `::capnp::any_pointer_list` |
//! | `List(AnyStruct)`, `List(T)` of a parameter `T` | `AnyList` | `::capnp::any_pointer` |
//! | `AnyPointer`, as the type of a constant | a struct, [`ANY_STRUCT`] | `::capnp::any_pointer` |
//!
//! `crate::splice` replaces the paths of the placeholders in the code.

use capnp::schema_capnp::{brand, field, node, type_, value};

/// The annotation `option` of `rust.capnp`.
const OPTION: u64 = 0xabfe_f22c_4ee1_964e;

/// The crate that the placeholders seem to come from.
pub(crate) const CRATE: &str = "capnp_threads";
/// The module that they seem to stand in.
pub(crate) const MODULE: &str = "placeholders_capnp";

/// The file of the placeholders.
pub(crate) const FILE: u64 = 0xe1a5_0b1f_6d9c_4e00;
const CAPABILITY: u64 = 0xe1a5_0b1f_6d9c_4e01;
const ANY_POINTER: u64 = 0xe1a5_0b1f_6d9c_4e02;
const ANY_STRUCT: u64 = 0xe1a5_0b1f_6d9c_4e03;

/// A node that stands for a type.
pub(super) struct Placeholder {
    id: u64,
    name: &'static str,
}

const TYPES: [Placeholder; 3] = [
    Placeholder { id: CAPABILITY, name: "Capability" },
    Placeholder { id: ANY_POINTER, name: "AnyPointer" },
    Placeholder { id: ANY_STRUCT, name: "AnyStruct" },
];

/// The nodes to be added to a request.
pub(super) fn placeholders() -> Vec<Placeholder> {
    let file = Placeholder { id: FILE, name: "placeholders.capnp" };
    std::iter::once(file).chain(TYPES).collect()
}

impl Placeholder {
    pub(super) fn write(&self, mut node: node::Builder<'_>) {
        node.set_id(self.id);
        node.set_display_name(self.name);
        match self.id {
            FILE => {
                node.set_file(());
                let mut nested = node.init_nested_nodes(TYPES.len() as u32);
                for (at, Placeholder { id, name }) in (0..).zip(TYPES) {
                    let mut nested = nested.reborrow().get(at);
                    nested.set_id(id);
                    nested.set_name(name);
                }
            }
            ANY_STRUCT => {
                node.set_scope_id(FILE);
                node.init_struct();
            }
            _ => {
                node.set_scope_id(FILE);
                node.init_interface();
            }
        }
    }
}

/// Replaces types in the copy of a node.
pub(super) fn replace(original: node::Reader<'_>, copy: node::Builder<'_>) -> capnp::Result<()> {
    match copy.which()? {
        node::Struct(copy) => {
            let mut fields = copy.get_fields()?;
            for at in 0..fields.len() {
                let field = fields.reborrow().get(at);
                let optional = is_optional(field.reborrow_as_reader())?;
                if let field::Slot(mut slot) = field.which()? {
                    let ty = slot.reborrow().get_type()?;
                    if optional {
                        inside(ty)?;
                    } else {
                        of_field(ty)?;
                    }
                    let ty = slot.reborrow_as_reader().get_type()?.which()?;
                    match ty {
                        type_::Interface(_) => slot.get_default_value()?.set_interface(()),
                        type_::AnyPointer(_) => drop(slot.get_default_value()?.init_any_pointer()),
                        _ => {}
                    }
                }
            }
        }
        node::Interface(mut copy) => {
            let mut bases = copy.reborrow().get_superclasses()?;
            for at in 0..bases.len() {
                let base = bases.reborrow().get(at);
                if base.has_brand() {
                    in_brand(base.get_brand()?)?;
                }
            }
            let mut methods = copy.get_methods()?;
            for at in 0..methods.len() {
                let mut method = methods.reborrow().get(at);
                if method.has_param_brand() {
                    in_brand(method.reborrow().get_param_brand()?)?;
                }
                if method.has_result_brand() {
                    in_brand(method.get_result_brand()?)?;
                }
            }
        }
        node::Const(mut copy) => {
            if let (type_::AnyPointer(_), node::Const(original)) =
                (copy.reborrow_as_reader().get_type()?.which()?, original.which()?)
            {
                let value::AnyPointer(value) = original.get_value()?.which()? else { return Ok(()) };
                copy.reborrow().get_type()?.init_struct().set_type_id(ANY_STRUCT);
                copy.get_value()?.init_struct().set_as(value)?;
            } else {
                inside(copy.get_type()?)?;
            }
        }
        node::Annotation(copy) => inside(copy.get_type()?)?,
        _ => {}
    }
    Ok(())
}

/// Whether a field's getter gives an `Option`, which the stock generator knows of pointers but not of interfaces.
fn is_optional(field: field::Reader<'_>) -> capnp::Result<bool> {
    Ok(field.get_annotations()?.iter().any(|annotation| annotation.get_id() == OPTION))
}

/// Replaces the type of a field.
fn of_field(ty: type_::Builder<'_>) -> capnp::Result<()> {
    if pointer(ty.reborrow_as_reader())? == Some(Pointer::Capability) {
        ty.init_interface().set_type_id(CAPABILITY);
        return Ok(());
    }
    inside(ty)
}

/// Replaces what a type is made of.
fn inside(mut ty: type_::Builder<'_>) -> capnp::Result<()> {
    let element = match ty.reborrow().which()? {
        type_::List(list) => {
            let mut element = list.get_element_type()?;
            inside(element.reborrow())?;
            pointer(element.reborrow_as_reader())?
        }
        type_::Struct(named) if named.has_brand() => return in_brand(named.get_brand()?),
        type_::Interface(named) if named.has_brand() => return in_brand(named.get_brand()?),
        type_::Enum(named) if named.has_brand() => return in_brand(named.get_brand()?),
        _ => None,
    };
    let placeholder = match element {
        None => return Ok(()),
        Some(Pointer::Capability) => CAPABILITY,
        Some(Pointer::Any) => ANY_POINTER,
        Some(Pointer::Unknown) => {
            ty.init_any_pointer().init_unconstrained().set_list(());
            return Ok(());
        }
    };
    if let type_::List(list) = ty.which()? {
        list.init_element_type().init_interface().set_type_id(placeholder);
    }
    Ok(())
}

fn in_brand(brand: brand::Builder<'_>) -> capnp::Result<()> {
    let mut scopes = brand.get_scopes()?;
    for at in 0..scopes.len() {
        if let brand::scope::Bind(bindings) = scopes.reborrow().get(at).which()? {
            let mut bindings = bindings?;
            for at in 0..bindings.len() {
                if let brand::binding::Type(ty) = bindings.reborrow().get(at).which()? {
                    inside(ty?)?;
                }
            }
        }
    }
    Ok(())
}

/// What an untyped pointer is, as the element of a list.
#[derive(PartialEq)]
enum Pointer {
    Capability,
    /// A pointer of its own for each element.
    Any,
    /// A struct or a type parameter: how the list is encoded depends on what the structs are.
    Unknown,
}

fn pointer(ty: type_::Reader<'_>) -> capnp::Result<Option<Pointer>> {
    use type_::any_pointer::{unconstrained, ImplicitMethodParameter, Parameter, Unconstrained};
    let type_::AnyPointer(pointer) = ty.which()? else { return Ok(None) };
    Ok(Some(match pointer.which()? {
        Unconstrained(kind) => match kind.which()? {
            unconstrained::AnyKind(()) | unconstrained::List(()) => Pointer::Any,
            unconstrained::Capability(()) => Pointer::Capability,
            unconstrained::Struct(()) => Pointer::Unknown,
        },
        Parameter(_) | ImplicitMethodParameter(_) => Pointer::Unknown,
    }))
}
