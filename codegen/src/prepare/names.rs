//! Names of the schema that are also names of generated items beside them.
//!
//! Such a name gets an underscore, as keywords do: an enum that is called as a generated type of the struct or
//! interface around it; a struct or interface whose module would be that of a group, or that of the params or
//! results of a method; an annotation whose module would be that of a struct or interface; and a type parameter that
//! is called as a generated type, or as a parameter of a scope around it.

use std::collections::{HashMap, HashSet};

use capnp::schema_capnp::{annotation, code_generator_request as request, field, node, value};
use capnp::struct_list;

use super::by_id;

/// The annotation `name` of `rust.capnp`.
const NAME: u64 = 0xc2fe_4c6d_1001_66d0;

/// Types that the stock generator writes beside what is declared in a struct.
const OF_STRUCTS: &[&str] = &["Builder", "Owned", "Pipeline", "Reader"];
/// The same, if the struct has a union.
const OF_UNIONS: &[&str] = &["Which", "WhichBuilder", "WhichReader"];
/// The same, of an interface.
const OF_INTERFACES: &[&str] = &["Client", "Owned", "Server", "ServerDispatch"];

/// Changes names in the copies of a request's nodes.
pub(super) fn change(
    original: request::Reader<'_>,
    mut copies: struct_list::Builder<'_, node::Owned>,
) -> capnp::Result<()> {
    let mut names = Names { nodes: by_id(original)?, declared: HashMap::new(), parameters: HashMap::new() };
    let files: Vec<_> =
        names.nodes.values().filter(|node| matches!(node.which(), Ok(node::File(())))).copied().collect();
    for file in files {
        names.scope(file, &HashSet::new())?;
    }
    for at in 0..copies.len() {
        let mut copy = copies.reborrow().get(at);
        let id = copy.reborrow().get_id();
        let mut nested = copy.reborrow().get_nested_nodes()?;
        for at in 0..nested.len() {
            let mut nested = nested.reborrow().get(at);
            if let Some(name) = names.declared.get(&nested.reborrow().get_id()) {
                nested.set_name(name);
            }
        }
        if let Some(name) = names.declared.get(&id) {
            let mut annotations = copy.reborrow().get_annotations()?;
            for at in 0..annotations.len() {
                let annotation = annotations.reborrow().get(at);
                if annotation.reborrow_as_reader().get_id() == NAME {
                    annotation.get_value()?.set_text(name);
                }
            }
        }
        if let Some(changed) = names.parameters.get(&id) {
            let mut parameters = copy.get_parameters()?;
            for (at, name) in (0..).zip(changed) {
                parameters.reborrow().get(at).set_name(name);
            }
        }
    }
    Ok(())
}

struct Names<'a> {
    nodes: HashMap<u64, node::Reader<'a>>,
    /// The new names of nodes, where they differ.
    declared: HashMap<u64, String>,
    /// The new names of all type parameters of a node, where some differ.
    parameters: HashMap<u64, Vec<String>>,
}

impl<'a> Names<'a> {
    /// Decides on the names in a scope. `outer` are the type parameters of the scopes around it.
    fn scope(&mut self, node: node::Reader<'a>, outer: &HashSet<String>) -> capnp::Result<()> {
        let (mut modules, types) = self.generated(node)?;
        let parameters = self.type_parameters(node, outer)?;
        let nested: Vec<(node::Reader<'a>, String)> = self.nested(node)?;
        // Annotations come last: their modules hold nothing but the ID and the type.
        let (annotations, others): (Vec<_>, Vec<_>) =
            nested.into_iter().partition(|(node, _)| matches!(node.which(), Ok(node::Annotation(_))));
        for (node, name) in others.into_iter().chain(annotations) {
            let mut new = name.clone();
            match node.which()? {
                node::Enum(_) => {
                    while types.contains(&new) {
                        new.push('_');
                    }
                }
                node::Const(_) => {}
                _ => {
                    while !modules.insert(snake(&new)) {
                        new.push('_');
                    }
                }
            }
            if new != name {
                self.declared.insert(node.get_id(), new);
            }
            self.scope(node, &parameters)?;
        }
        // The params and results of a method are declared by no scope, and may have parameters of the method's.
        if let node::Interface(of) = node.which()? {
            for method in of.get_methods()? {
                for id in [method.get_param_struct_type(), method.get_result_struct_type()] {
                    if let Some(node) = self.nodes.get(&id).filter(|node| node.get_scope_id() == 0) {
                        self.scope(*node, &parameters)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What a scope declares, with its name in the code.
    fn nested(&self, node: node::Reader<'a>) -> capnp::Result<Vec<(node::Reader<'a>, String)>> {
        let mut found = Vec::new();
        for nested in node.get_nested_nodes()? {
            if let Some(node) = self.nodes.get(&nested.get_id()) {
                let name = match given(node.get_annotations()?)? {
                    Some(name) => name,
                    None => nested.get_name()?.to_string()?,
                };
                found.push((*node, name));
            }
        }
        Ok(found)
    }

    /// The modules and the types that are generated in a scope besides what it declares.
    fn generated(&self, node: node::Reader<'a>) -> capnp::Result<(HashSet<String>, HashSet<String>)> {
        let mut modules = HashSet::new();
        let mut types = HashSet::from(["Self".to_owned()]);
        let mut add = |names: &[&str]| types.extend(names.iter().map(|name| (*name).to_owned()));
        match node.which()? {
            node::Struct(of) => {
                add(OF_STRUCTS);
                if of.get_discriminant_count() > 0 {
                    add(OF_UNIONS);
                }
                for field in of.get_fields()? {
                    if let field::Group(_) = field.which()? {
                        modules.insert(snake(&field_name(field)?));
                    }
                }
            }
            node::Interface(of) => {
                add(OF_INTERFACES);
                for method in of.get_methods()? {
                    let name = method.get_name()?.to_str()?;
                    let structs = [method.get_param_struct_type(), method.get_result_struct_type()];
                    for (id, what) in structs.into_iter().zip(["Params", "Results"]) {
                        types.insert(format!("{}{what}", capitalized(name)));
                        if self.nodes.get(&id).is_some_and(|node| node.get_scope_id() == 0) {
                            modules.insert(snake(&format!("{name}{what}")));
                        }
                    }
                }
            }
            _ => {}
        }
        Ok((modules, types))
    }

    /// Decides on the names of a node's type parameters, and adds them to those around it.
    fn type_parameters(
        &mut self,
        node: node::Reader<'_>,
        outer: &HashSet<String>,
    ) -> capnp::Result<HashSet<String>> {
        let mut all = outer.clone();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for parameter in node.get_parameters()? {
            let name = parameter.get_name()?.to_string()?;
            let mut free = name.clone();
            while all.contains(&free) || is_generated(&free) {
                free.push('_');
            }
            all.insert(free.clone());
            old.push(name);
            new.push(free);
        }
        if old != new {
            self.parameters.insert(node.get_id(), new);
        }
        Ok(all)
    }
}

/// Whether generated code has a type, or calls one of the prelude, by this name.
fn is_generated(name: &str) -> bool {
    let lists = [OF_STRUCTS, OF_UNIONS, OF_INTERFACES, &["Box", "Option", "Result", "Self"]];
    lists.into_iter().flatten().any(|generated| *generated == name)
        || name.ends_with("Params")
        || name.ends_with("Results")
}

pub(crate) fn field_name(field: field::Reader<'_>) -> capnp::Result<String> {
    match given(field.get_annotations()?)? {
        Some(name) => Ok(name),
        None => Ok(field.get_name()?.to_string()?),
    }
}

/// The name that an annotation gives.
fn given(annotations: struct_list::Reader<'_, annotation::Owned>) -> capnp::Result<Option<String>> {
    for annotation in annotations {
        if annotation.get_id() == NAME {
            if let value::Text(name) = annotation.get_value()?.which()? {
                return Ok(Some(name?.to_string()?));
            }
        }
    }
    Ok(None)
}

/// A name as the stock generator makes it one of a module or function, but for keywords.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// A name as the stock generator makes it one of a type alias or variant.
fn capitalized(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_stock_generator() {
        assert_eq!(snake("fooBAr"), "foo_b_ar");
        assert_eq!(snake("FooBar_"), "foo_bar_");
        assert_eq!(snake("u16Id"), "u16_id");
        assert_eq!(capitalized("fooBar"), "FooBar");
    }
}
