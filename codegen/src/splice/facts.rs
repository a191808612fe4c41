//! What is known of methods from the schema alone.

use std::collections::HashMap;

use capnp::schema_capnp::node::source_info;
use capnp::schema_capnp::{code_generator_request, node};

/// What the code does not say, for all interfaces of a request.
pub(super) struct Facts(HashMap<u64, Named>);

struct Named {
    name: String,
    comment: String,
    methods: Vec<Method>,
    bases: Vec<u64>,
    parameters: Vec<String>,
}

/// A method as the schema declares it.
pub(super) struct Method {
    pub(super) name: String,
    /// The comment beside its declaration; empty if there is none.
    pub(super) comment: String,
    /// Whether its params are a list in the declaration, and that is empty.
    pub(super) without_params: bool,
}

impl Facts {
    pub(super) fn of(request: code_generator_request::Reader<'_>) -> capnp::Result<Self> {
        let nodes: HashMap<u64, node::Reader<'_>> =
            request.get_nodes()?.iter().map(|node| (node.get_id(), node)).collect();
        let comments: HashMap<u64, source_info::Reader<'_>> =
            request.get_source_info()?.iter().map(|info| (info.get_id(), info)).collect();
        let mut interfaces = HashMap::new();
        for (&id, node) in &nodes {
            let node::Interface(interface) = node.which()? else { continue };
            let info = comments.get(&id);
            let members = info.map(|info| info.get_members()).transpose()?;
            let mut methods = Vec::new();
            for (method, ordinal) in interface.get_methods()?.iter().zip(0..) {
                let params = nodes.get(&method.get_param_struct_type());
                let member = members.and_then(|members| members.try_get(ordinal));
                methods.push(Method {
                    name: method.get_name()?.to_string()?,
                    comment: member.map_or(Ok(String::new()), |member| text(member.get_doc_comment()?))?,
                    without_params: params.map_or(Ok(false), |params| is_empty_list(*params))?,
                });
            }
            let path = node.get_display_name()?.to_str()?;
            let name = path.split_once(':').map_or(path, |(_file, name)| name).to_owned();
            let comment = info.map_or(Ok(String::new()), |info| text(info.get_doc_comment()?))?;
            let bases = interface.get_superclasses()?.iter().map(|base| base.get_id()).collect();
            let parameters = parameters(&nodes, *node)?;
            interfaces.insert(id, Named { name, comment, methods, bases, parameters });
        }
        Ok(Facts(interfaces))
    }

    /// The interface's name in its file, as in `Outer.Inner`, and the comment beside its declaration.
    pub(super) fn name(&self, interface: u64) -> Result<(&str, &str), String> {
        let named = self.0.get(&interface).ok_or_else(|| unknown(interface))?;
        Ok((&named.name, &named.comment))
    }

    /// The interfaces that it extends itself.
    pub(super) fn bases(&self, interface: u64) -> Result<&[u64], String> {
        self.0.get(&interface).map(|named| &*named.bases).ok_or_else(|| unknown(interface))
    }

    /// The names of its type parameters, those of the outermost scope first.
    pub(super) fn parameters(&self, interface: u64) -> Result<&[String], String> {
        self.0.get(&interface).map(|named| &*named.parameters).ok_or_else(|| unknown(interface))
    }

    pub(super) fn method(&self, interface: u64, ordinal: u16) -> Result<&Method, String> {
        let named = self.0.get(&interface).ok_or_else(|| unknown(interface))?;
        let method = named.methods.get(usize::from(ordinal));
        method.ok_or_else(|| format!("the schema knows no method {ordinal} of `{}`", named.name))
    }
}

fn text(comment: capnp::text::Reader<'_>) -> capnp::Result<String> {
    Ok(comment.to_str()?.trim_end().to_owned())
}

fn unknown(interface: u64) -> String {
    format!("the schema knows no interface {interface:#x}")
}

fn parameters(nodes: &HashMap<u64, node::Reader<'_>>, node: node::Reader<'_>) -> capnp::Result<Vec<String>> {
    let mut names = match nodes.get(&node.get_scope_id()) {
        Some(scope) => parameters(nodes, *scope)?,
        None => Vec::new(),
    };
    for parameter in node.get_parameters()? {
        names.push(parameter.get_name()?.to_string()?);
    }
    Ok(names)
}

/// Whether a params struct stands for a list of none. Such a struct has no scope of its own.
fn is_empty_list(params: node::Reader<'_>) -> capnp::Result<bool> {
    Ok(match params.which()? {
        node::Struct(params_struct) => params.get_scope_id() == 0 && params_struct.get_fields()?.is_empty(),
        _ => false,
    })
}
