//! The interfaces that an interface extends, each with its type arguments.
//!
//! The stock generator names them all in its dispatch function, but gives those that are not extended directly the
//! arguments that they have where they are extended: in terms of another interface's parameters. So the tree of
//! interfaces is put together again here, and parameters are replaced from its root on.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Expr, ExprCall, ExprLit, GenericArgument, Ident, ImplItem, Item, ItemImpl, Pat, Path, PathArguments, Type,
};

use super::facts::Facts;
use super::interface::integer;

/// An interface that another extends.
pub(super) struct Base {
    pub(super) id: u64,
    /// Its client.
    pub(super) client: TokenStream,
}

/// What an interface extends.
pub(super) struct Extended {
    /// The `Server` traits of the interfaces that it extends itself.
    pub(super) servers: Vec<Path>,
    /// All interfaces that it extends, over however many others, each once.
    pub(super) all: Vec<Base>,
}

/// Reads what the interface with the given ID extends off the items of its module.
pub(super) fn of(interface: u64, items: &[Item], facts: &Facts) -> Result<Extended, String> {
    let mut arms = dispatch_arms(items);
    let mut roots = tree(interface, &mut arms, facts)?;
    if arms.next().is_some() {
        return Err("more interfaces are dispatched to than are extended".to_owned());
    }
    let mut extended = Extended { servers: Vec::new(), all: Vec::new() };
    for root in &mut roots {
        let server = renamed(&root.dispatch, "Server");
        if !extended.servers.contains(&server) {
            extended.servers.push(server);
        }
        substitute(root, facts)?;
    }
    roots.into_iter().for_each(|root| collect(root, &mut extended.all));
    Ok(extended)
}

/// An interface that is extended, and what it extends itself.
struct Node {
    id: u64,
    /// `path::ServerDispatch<Q>`
    dispatch: Path,
    bases: Vec<Node>,
}

/// The arms stand in the order of a walk through the tree that comes to what an interface extends first.
fn tree(
    interface: u64,
    arms: &mut impl Iterator<Item = (u64, Option<Path>)>,
    facts: &Facts,
) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    for &id in facts.bases(interface)? {
        let bases = tree(id, arms, facts)?;
        let arm = arms.next().filter(|(of, _)| *of == id);
        let (_, dispatch) = arm.ok_or_else(|| format!("there is no arm for {id:#x}"))?;
        let dispatch = dispatch.ok_or_else(|| format!("the arm of {id:#x} calls no dispatch function"))?;
        nodes.push(Node { id, dispatch, bases });
    }
    Ok(nodes)
}

/// Puts the arguments of an interface in the place of its parameters, in what it extends.
fn substitute(node: &mut Node, facts: &Facts) -> Result<(), String> {
    let arguments = arguments(&node.dispatch);
    let parameters = facts.parameters(node.id)?;
    if arguments.len() != parameters.len() {
        return Err(format!("{} arguments for {} parameters", arguments.len(), parameters.len()));
    }
    let mut binding = Binding { parameters, arguments };
    for base in &mut node.bases {
        binding.visit_path_mut(&mut base.dispatch);
        substitute(base, facts)?;
    }
    Ok(())
}

/// Replaces parameters by arguments.
struct Binding<'a> {
    parameters: &'a [String],
    arguments: Vec<Type>,
}

impl VisitMut for Binding<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        let name = match ty {
            Type::Path(path) if path.qself.is_none() => path.path.get_ident(),
            _ => None,
        };
        match name.and_then(|name| self.parameters.iter().position(|parameter| name == parameter)) {
            Some(at) => *ty = self.arguments[at].clone(),
            None => visit_mut::visit_type_mut(self, ty),
        }
    }
}

fn collect(node: Node, all: &mut Vec<Base>) {
    node.bases.into_iter().for_each(|base| collect(base, all));
    if !all.iter().any(|base| base.id == node.id) {
        all.push(Base { id: node.id, client: renamed(&node.dispatch, "Client").into_token_stream() });
    }
}

/// The arms of the dispatch function that lead to the interfaces extended:
/// `0x1234 => path::ServerDispatch::<_T, Q>::dispatch_call_internal(…),`
fn dispatch_arms(items: &[Item]) -> impl Iterator<Item = (u64, Option<Path>)> + '_ {
    let impls = items.iter().filter_map(|item| match item {
        Item::Impl(ItemImpl { items, .. }) => Some(items),
        _ => None,
    });
    let bodies = impls.flatten().filter_map(|item| match item {
        ImplItem::Fn(item) if item.sig.ident == "dispatch_call" => item.block.stmts.last(),
        _ => None,
    });
    let arms = bodies.flat_map(|last| match last {
        syn::Stmt::Expr(Expr::Match(matched), _) => &matched.arms[..],
        _ => &[],
    });
    arms.filter_map(|arm| {
        let Pat::Lit(id) = &arm.pat else { return None };
        let id = integer(&Expr::Lit(ExprLit { attrs: Vec::new(), lit: id.lit.clone() })).ok()?;
        let dispatch = match &*arm.body {
            Expr::Call(ExprCall { func, .. }) => dispatch(func),
            _ => None,
        };
        Some((id, dispatch))
    })
}

/// From `path::ServerDispatch::<_T, Q>::dispatch_call_internal` to `path::ServerDispatch<Q>`.
fn dispatch(function: &Expr) -> Option<Path> {
    let Expr::Path(path) = function else { return None };
    let mut path = path.path.clone();
    path.segments.pop()?;
    // What is left ends in `::`.
    let mut last = path.segments.pop()?.into_value();
    if last.ident != "ServerDispatch" {
        return None;
    }
    if let PathArguments::AngleBracketed(arguments) = &mut last.arguments {
        arguments.colon2_token = None;
        arguments.args = arguments.args.iter().skip(1).cloned().collect();
        if arguments.args.is_empty() {
            last.arguments = PathArguments::None;
        }
    }
    path.segments.push(last);
    Some(path)
}

fn arguments(path: &Path) -> Vec<Type> {
    let last = path.segments.last().map(|segment| &segment.arguments);
    let Some(PathArguments::AngleBracketed(arguments)) = last else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    types.collect()
}

/// The same path to another item of the interface's module.
fn renamed(path: &Path, name: &str) -> Path {
    let mut path = path.clone();
    if let Some(last) = path.segments.last_mut() {
        last.ident = Ident::new(name, last.ident.span());
    }
    path
}
