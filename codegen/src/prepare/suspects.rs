//! Members of a schema that the stock generator may stop at, and a request without some of them.

use std::collections::HashMap;

use capnp::schema_capnp::{code_generator_request as request, field, node};
use capnp::struct_list;

use super::by_id;

/// A field, a constant or an annotation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Suspect {
    /// The node that it is a member of.
    pub(crate) scope: u64,
    /// The name of that, from the file down: `Outer.Inner`. Empty for the file.
    pub(crate) scope_name: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// The field at this place in the struct.
    Field(u32),
    /// A constant or an annotation, by its ID.
    Declaration(u64),
}

/// The suspects of a requested file.
pub(super) fn of(request: request::Reader<'_>, file: u32) -> capnp::Result<Vec<Suspect>> {
    let nodes = by_id(request)?;
    let mut found = Vec::new();
    let id = request.get_requested_files()?.get(file).get_id();
    add(&nodes, id, &mut found)?;
    Ok(found)
}

fn add(nodes: &HashMap<u64, node::Reader<'_>>, id: u64, found: &mut Vec<Suspect>) -> capnp::Result<()> {
    let Some(node) = nodes.get(&id) else { return Ok(()) };
    let name = node.get_display_name()?.to_str()?;
    let scope_name = name.split_once(':').map_or("", |(_file, name)| name);
    let suspect = |name: &str, kind| Suspect {
        scope: id,
        scope_name: scope_name.to_owned(),
        name: name.to_owned(),
        kind,
    };
    match node.which()? {
        node::Struct(of) => {
            for (at, field) in (0..).zip(of.get_fields()?) {
                match field.which()? {
                    // A group is made of fields, so it is to blame for nothing itself.
                    field::Group(group) => add(nodes, group.get_type_id(), found)?,
                    field::Slot(_) => found.push(suspect(field.get_name()?.to_str()?, Kind::Field(at))),
                }
            }
        }
        node::Interface(of) => {
            for method in of.get_methods()? {
                for id in [method.get_param_struct_type(), method.get_result_struct_type()] {
                    if nodes.get(&id).is_some_and(|node| node.get_scope_id() == 0) {
                        add(nodes, id, found)?;
                    }
                }
            }
        }
        _ => {}
    }
    for nested in node.get_nested_nodes()? {
        let id = nested.get_id();
        match nodes.get(&id).map(|node| node.which()).transpose()? {
            Some(node::Const(_) | node::Annotation(_)) => {
                found.push(suspect(nested.get_name()?.to_str()?, Kind::Declaration(id)));
            }
            _ => add(nodes, id, found)?,
        }
    }
    Ok(())
}

/// Takes suspects out of the nodes. A field stays in its place, without type and annotations.
pub(super) fn leave_out(
    mut nodes: struct_list::Builder<'_, node::Owned>,
    suspects: &[&Suspect],
) -> capnp::Result<()> {
    if suspects.is_empty() {
        return Ok(());
    }
    for at in 0..nodes.len() {
        let mut node = nodes.reborrow().get(at);
        let id = node.reborrow().get_id();
        let here: Vec<Kind> = suspects.iter().filter(|s| s.scope == id).map(|s| s.kind).collect();
        for kind in &here {
            if let (Kind::Field(at), node::Struct(of)) = (kind, node.reborrow().which()?) {
                let mut field = of.get_fields()?.get(*at);
                field.reborrow().init_annotations(0);
                if let field::Slot(mut slot) = field.which()? {
                    slot.set_had_explicit_default(false);
                    slot.reborrow().init_type().set_void(());
                    slot.init_default_value().set_void(());
                }
            }
        }
        let nested = node.reborrow_as_reader().get_nested_nodes()?;
        let kept = nested.iter().filter(|nested| !here.contains(&Kind::Declaration(nested.get_id())));
        let kept: Vec<(u64, String)> = kept
            .map(|nested| Ok((nested.get_id(), nested.get_name()?.to_string()?)))
            .collect::<capnp::Result<_>>()?;
        if kept.len() < nested.len() as usize {
            let mut copies = node.init_nested_nodes(kept.len() as u32);
            for (at, (id, name)) in (0..).zip(kept) {
                let mut copy = copies.reborrow().get(at);
                copy.set_id(id);
                copy.set_name(name);
            }
        }
    }
    Ok(())
}
