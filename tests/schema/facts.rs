//! What must agree in two schemas for their messages to be the same, as lines of text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use capnp::introspect::{Type, TypeVariant};
use capnp::message::ReaderOptions;
use capnp::schema::{EnumSchema, StructSchema};
use capnp::schema_capnp::{code_generator_request, enumerant, field, node, type_, value};
use capnp::serialize;

/// Lines of the form `Name fact fact …`, with one name each.
#[derive(Debug, Default)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    /// The facts of types and all types that they refer to, out of what generated code knows of itself.
    pub fn of_types(types: impl IntoIterator<Item = Type>) -> Self {
        let mut nodes = BTreeMap::new();
        for ty in types {
            collect(ty, &mut nodes);
        }
        Self::of_nodes(&nodes, &nodes.keys().copied().collect())
    }

    /// The facts of the structs and enums of a file, out of the output of `capnp compile -o-`.
    pub fn of_request(mut request: &[u8]) -> Self {
        let message = serialize::read_message_from_flat_slice(&mut request, ReaderOptions::new()).unwrap();
        let request: code_generator_request::Reader<'_> = message.get_root().unwrap();
        let nodes: BTreeMap<u64, _> =
            request.get_nodes().unwrap().iter().map(|node| (node.get_id(), node)).collect();
        let file = request.get_requested_files().unwrap().get(0).get_filename().unwrap().to_str().unwrap();
        let wanted = nodes
            .iter()
            .filter(|(_, node)| display_name(**node).starts_with(&format!("{file}:")))
            .map(|(id, _)| *id)
            .collect();
        Self::of_nodes(&nodes, &wanted)
    }

    /// The facts that were stored as text.
    pub fn parse(text: &str) -> Self {
        let split = |line: &str| line.split_once(' ').map(|(name, facts)| (name.into(), facts.into()));
        Facts(text.lines().map(|line| split(line).expect("a name and facts")).collect())
    }

    /// The facts by name.
    pub fn lines(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }

    fn of_nodes(nodes: &BTreeMap<u64, node::Reader<'_>>, wanted: &BTreeSet<u64>) -> Self {
        let mut facts = Facts::default();
        for id in wanted {
            facts.add_node(nodes, nodes[id]);
        }
        facts
    }

    fn add(&mut self, name: String, facts: String) {
        let before = self.0.insert(name, facts);
        assert_eq!(before, None, "two nodes of one name");
    }

    fn add_node(&mut self, nodes: &BTreeMap<u64, node::Reader<'_>>, node: node::Reader<'_>) {
        let name = short_name(node);
        let id = node.get_id();
        match node.which().unwrap() {
            node::Struct(s) => {
                // A group is a part of its struct: its ID is no one's business, and its sizes are the struct's.
                let own = match s.get_is_group() {
                    true => "group".to_string(),
                    false => format!(
                        "struct id={id:#x} data={} pointers={}",
                        s.get_data_word_count(),
                        s.get_pointer_count()
                    ),
                };
                let union = match s.get_discriminant_count() {
                    0 => "-".to_string(),
                    count => format!("{count}@{}", s.get_discriminant_offset()),
                };
                for field in s.get_fields().unwrap() {
                    self.add_field(nodes, &name, field);
                }
                self.add_or_extend(name, format!("{own} union={union}"));
            }
            node::Enum(e) => {
                for (i, enumerant) in e.get_enumerants().unwrap().iter().enumerate() {
                    self.add(format!("{name}.{}", enumerant_name(enumerant)), format!("enumerant {i}"));
                }
                self.add(name, format!("enum id={id:#x}"));
            }
            _ => {}
        }
    }

    /// A group has a line as a field of its struct already.
    fn add_or_extend(&mut self, name: String, facts: String) {
        let line = self.0.entry(name).or_default();
        *line = if *line < facts { format!("{line} {facts}") } else { format!("{facts} {line}") };
        *line = line.trim().to_string();
    }

    fn add_field(&mut self, nodes: &BTreeMap<u64, node::Reader<'_>>, of: &str, field: field::Reader<'_>) {
        let name = format!("{of}.{}", field.get_name().unwrap().to_str().unwrap());
        let disc = match field.get_discriminant_value() {
            field::NO_DISCRIMINANT => "-".to_string(),
            disc => disc.to_string(),
        };
        match field.which().unwrap() {
            field::Slot(slot) => {
                let ordinal = match field.get_ordinal().which().unwrap() {
                    field::ordinal::Explicit(ordinal) => ordinal.to_string(),
                    field::ordinal::Implicit(()) => "-".to_string(),
                };
                let ty = type_name(nodes, slot.get_type().unwrap());
                let default = default(slot.get_default_value().unwrap());
                let offset = slot.get_offset();
                self.add(
                    name,
                    format!("slot ordinal={ordinal} offset={offset} disc={disc} type={ty} default={default}"),
                );
            }
            field::Group(_) => self.add_or_extend(name, format!("field disc={disc}")),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, facts)| writeln!(f, "{name} {facts}"))
    }
}

fn collect(ty: Type, nodes: &mut BTreeMap<u64, node::Reader<'static>>) {
    match ty.which() {
        TypeVariant::Struct(raw) => {
            let schema = StructSchema::from(raw);
            let node = schema.get_proto();
            if nodes.insert(node.get_id(), node).is_none() {
                for field in schema.get_fields().unwrap() {
                    collect(field.get_type(), nodes);
                }
            }
        }
        TypeVariant::Enum(raw) => {
            let node = EnumSchema::from(raw).get_proto();
            nodes.insert(node.get_id(), node);
        }
        TypeVariant::List(element) => collect(element, nodes),
        _ => {}
    }
}

fn display_name(node: node::Reader<'_>) -> String {
    node.get_display_name().unwrap().to_string().unwrap()
}

/// A node's name without its file's.
fn short_name(node: node::Reader<'_>) -> String {
    let name = display_name(node);
    name.rsplit_once(':').map_or(name.clone(), |(_, short)| short.to_string())
}

fn enumerant_name(enumerant: enumerant::Reader<'_>) -> String {
    enumerant.get_name().unwrap().to_string().unwrap()
}

fn type_name(nodes: &BTreeMap<u64, node::Reader<'_>>, ty: type_::Reader<'_>) -> String {
    let named = |kind: &str, id: u64| match nodes.get(&id) {
        Some(node) => format!("{kind} {}", short_name(*node)),
        None => format!("{kind} {id:#x}"),
    };
    match ty.which().unwrap() {
        type_::Void(()) => "void".into(),
        type_::Bool(()) => "bool".into(),
        type_::Int8(()) => "int8".into(),
        type_::Int16(()) => "int16".into(),
        type_::Int32(()) => "int32".into(),
        type_::Int64(()) => "int64".into(),
        type_::Uint8(()) => "uint8".into(),
        type_::Uint16(()) => "uint16".into(),
        type_::Uint32(()) => "uint32".into(),
        type_::Uint64(()) => "uint64".into(),
        type_::Float32(()) => "float32".into(),
        type_::Float64(()) => "float64".into(),
        type_::Text(()) => "text".into(),
        type_::Data(()) => "data".into(),
        type_::List(list) => format!("list {}", type_name(nodes, list.get_element_type().unwrap())),
        type_::Enum(e) => named("enum", e.get_type_id()),
        type_::Struct(s) => named("struct", s.get_type_id()),
        type_::Interface(i) => named("interface", i.get_type_id()),
        type_::AnyPointer(p) => match p.which().unwrap() {
            type_::any_pointer::Parameter(p) => format!("parameter {}", p.get_parameter_index()),
            _ => "pointer".into(),
        },
    }
}

fn default(value: value::Reader<'_>) -> String {
    let number = |n: i128| if n == 0 { "-".to_string() } else { n.to_string() };
    match value.which().unwrap() {
        value::Bool(b) => number(b.into()),
        value::Int8(n) => number(n.into()),
        value::Int16(n) => number(n.into()),
        value::Int32(n) => number(n.into()),
        value::Int64(n) => number(n.into()),
        value::Uint8(n) => number(n.into()),
        value::Uint16(n) | value::Enum(n) => number(n.into()),
        value::Uint32(n) => number(n.into()),
        value::Uint64(n) => number(n.into()),
        value::Float32(x) => number(x.to_bits().into()),
        value::Float64(x) => number(x.to_bits().into()),
        value::Void(()) | value::Interface(()) => "-".into(),
        value::Text(text) => if text.unwrap().is_empty() { "-" } else { "a text" }.into(),
        value::Data(data) => if data.unwrap().is_empty() { "-" } else { "data" }.into(),
        value::List(p) | value::Struct(p) | value::AnyPointer(p) => {
            if p.is_null() { "-" } else { "a value" }.into()
        }
    }
}
