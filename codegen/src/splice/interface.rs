//! An interface, as the stock generator's items describe it.
//!
//! ```text
//! pub type FooParams<T> = ::capnp::capability::Params<…>;      a pair for each method
//! pub type FooResults<T> = ::capnp::capability::Results<…>;    (no results: a streaming method)
//! pub struct Client<T> { … }                                   the interface's type parameters
//! impl Client<T> { pub fn foo_request(&self) … }               the types of params and results, the ordinals
//! pub trait Server<T>: base::Server … where … { fn foo … }     supertraits, bounds, names of methods
//! impl capability::Server for ServerDispatch<_T, T> { … }      the IDs and brands of all interfaces extended
//! mod _private { const TYPE_ID: u64 = …; }                     the interface's ID
//! ```

use quote::ToTokens;
use syn::{
    Expr, ExprLit, FnArg, GenericArgument, Ident, ImplItem, ImplItemFn, Item, ItemTrait, Lit, Pat, Path,
    PathArguments, ReturnType, TraitItem, Type, WherePredicate,
};

use super::bases::{self, Base};
use super::facts::Facts;

/// An interface.
pub(super) struct Interface {
    /// Its name in the schema.
    pub(super) name: String,
    /// The comment beside its declaration; empty if there is none.
    pub(super) comment: String,
    /// Its type parameters.
    pub(super) params: Vec<Ident>,
    /// What they must be.
    pub(super) bounds: Vec<WherePredicate>,
    pub(super) methods: Vec<Method>,
    /// The `Server` traits of the interfaces that it extends itself.
    pub(super) supertraits: Vec<Path>,
    /// All interfaces that it extends, over however many others, each once.
    pub(super) bases: Vec<Base>,
}

/// A method of the interface itself.
pub(super) struct Method {
    /// Its name in the schema.
    pub(super) name: String,
    /// The comment beside its declaration; empty if there is none.
    pub(super) comment: String,
    pub(super) ordinal: u16,
    /// Its name in Rust.
    pub(super) ident: Ident,
    /// The name of what begins a call.
    pub(super) request: Ident,
    /// The aliases' names.
    pub(super) params_alias: Ident,
    pub(super) results_alias: Ident,
    pub(super) params: Type,
    /// `None` if it streams.
    pub(super) results: Option<Type>,
    pub(super) without_params: bool,
}

/// Whether `item` is the client that marks an interface's module.
pub(super) fn is_client(item: &Item) -> bool {
    matches!(item, Item::Struct(item) if item.ident == "Client")
}

/// Whether `item` is one that ours take the place of.
pub(super) fn is_stock(item: &Item) -> bool {
    match item {
        Item::Struct(item) => item.ident == "Client" || item.ident == "ServerDispatch",
        Item::Trait(item) => item.ident == "Server",
        Item::Type(item) => in_capability(&item.ty, &["Params", "Results"]),
        Item::Impl(item) => match (&item.trait_, last_ident(&item.self_ty)) {
            (_, Some(of)) if of == "ServerDispatch" => true,
            (None, Some(of)) => of == "Client",
            (Some((_, path, _)), Some(of)) if of == "Client" => {
                let last = path.segments.last().map(|segment| segment.ident.to_string());
                matches!(last.as_deref(), Some("FromClientHook" | "FromServer" | "Clone"))
            }
            _ => false,
        },
        _ => false,
    }
}

impl Interface {
    /// Reads the items of an interface's module.
    pub(super) fn of(items: &[Item], facts: &Facts) -> Result<Self, String> {
        let client = items.iter().find_map(|item| match item {
            Item::Struct(item) if item.ident == "Client" => Some(item),
            _ => None,
        });
        let client = client.ok_or("there is no client")?;
        let server = server(items)?;
        let id = type_id(items)?;
        let bounds = bounds(server);
        let extended = bases::of(id, items, facts)?;
        let mut methods = Vec::new();
        let named = server.items.iter().filter_map(|item| match item {
            TraitItem::Fn(item) => Some(&item.sig),
            _ => None,
        });
        let requests: Vec<&ImplItemFn> = requests(items).collect();
        let named: Vec<_> = named.collect();
        if requests.len() != named.len() {
            return Err(format!("{} requests for {} methods", requests.len(), named.len()));
        }
        for (request, signature) in requests.into_iter().zip(named) {
            methods.push(method(request, signature, id, facts)?);
        }
        let (name, comment) = facts.name(id)?;
        Ok(Interface {
            name: name.to_owned(),
            comment: comment.to_owned(),
            params: client.generics.type_params().map(|param| param.ident.clone()).collect(),
            bounds,
            methods,
            supertraits: extended.servers,
            bases: extended.all,
        })
    }
}

fn server(items: &[Item]) -> Result<&ItemTrait, String> {
    let server = items.iter().find_map(|item| match item {
        Item::Trait(item) if item.ident == "Server" => Some(item),
        _ => None,
    });
    server.ok_or_else(|| "there is no server trait".to_owned())
}

fn bounds(server: &ItemTrait) -> Vec<WherePredicate> {
    let clause = server.generics.where_clause.as_ref();
    clause.map(|clause| clause.predicates.iter().cloned().collect()).unwrap_or_default()
}

/// The interface's ID, from its private module.
pub(super) fn type_id(items: &[Item]) -> Result<u64, String> {
    let private = items.iter().find_map(|item| match item {
        Item::Mod(module) if module.ident == "_private" => module.content.as_ref().map(|(_, items)| items),
        _ => None,
    });
    let id = private.into_iter().flatten().find_map(|item| match item {
        Item::Const(item) if item.ident == "TYPE_ID" => Some(&*item.expr),
        _ => None,
    });
    integer(id.ok_or("there is no `_private::TYPE_ID`")?)
}

pub(super) fn integer<N>(expr: &Expr) -> Result<N, String>
where
    N: std::str::FromStr<Err: std::fmt::Display>,
{
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(lit), .. }) => lit.base10_parse().map_err(|e| e.to_string()),
        other => Err(format!("`{}` is not a number", other.to_token_stream())),
    }
}

/// The functions that begin calls, of the client's own `impl`.
fn requests(items: &[Item]) -> impl Iterator<Item = &ImplItemFn> {
    let own = items.iter().filter_map(|item| match item {
        Item::Impl(item) if item.trait_.is_none() => Some(item),
        _ => None,
    });
    let own = own.filter(|item| last_ident(&item.self_ty).is_some_and(|of| of == "Client"));
    own.flat_map(|item| &item.items).filter_map(|item| match item {
        ImplItem::Fn(item) => Some(item),
        _ => None,
    })
}

/// ```text
/// pub fn foo_request(&self) -> Request<P, R> { self.client.new_call(_private::TYPE_ID, 0, None) }
/// fn foo(self: Rc<Self>, _: FooParams, _: FooResults) -> …
/// ```
fn method(
    request: &ImplItemFn,
    signature: &syn::Signature,
    interface: u64,
    facts: &Facts,
) -> Result<Method, String> {
    let name = &request.sig.ident;
    let unlike = |what: &str| format!("`{name}` has no {what}");
    let ReturnType::Type(_, returned) = &request.sig.output else { return Err(unlike("request")) };
    let mut types = type_arguments(returned).into_iter();
    let params = types.next().ok_or_else(|| unlike("params"))?;
    let streams = last_ident(returned).is_some_and(|of| of == "StreamingRequest");
    let results = if streams { None } else { Some(types.next().ok_or_else(|| unlike("results"))?) };
    let Some(syn::Stmt::Expr(Expr::MethodCall(call), _)) = request.block.stmts.last() else {
        return Err(unlike("call"));
    };
    let ordinal = integer(call.args.iter().nth(1).ok_or_else(|| unlike("ordinal"))?)?;
    let mut aliases = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) if matches!(*input.pat, Pat::Wild(_)) => last_ident(&input.ty).cloned(),
        _ => None,
    });
    let params_alias = aliases.next().ok_or_else(|| unlike("alias of params"))?;
    let results_alias = aliases.next().unwrap_or_else(|| results_of(&params_alias));
    let fact = facts.method(interface, ordinal)?;
    Ok(Method {
        name: fact.name.clone(),
        comment: fact.comment.clone(),
        ordinal,
        ident: signature.ident.clone(),
        request: name.clone(),
        params_alias,
        results_alias,
        params,
        results,
        without_params: fact.without_params,
    })
}

/// The stock generator has no alias for the results of a streaming method, since it has none.
fn results_of(params: &Ident) -> Ident {
    let name = params.to_string();
    let name = name.strip_suffix("Params").unwrap_or(&name);
    Ident::new(&format!("{name}Results"), params.span())
}

fn last_ident(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

fn type_arguments(ty: &Type) -> Vec<Type> {
    let last = match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    };
    let Some(PathArguments::AngleBracketed(arguments)) = last.map(|segment| &segment.arguments) else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    types.collect()
}

/// Whether `ty` is `::capnp::capability::NAME<…>` for one of the names.
fn in_capability(ty: &Type, names: &[&str]) -> bool {
    let Type::Path(path) = ty else { return false };
    let segments: Vec<String> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    matches!(&segments[..], [capnp, capability, name]
        if capnp == "capnp" && capability == "capability" && names.contains(&&**name))
}
