//! Rewrites what the stock generator wrote for the interfaces of one file.
//!
//! The stock generator's code is taken apart as a syntax tree. In the module of each interface, the items that
//! are about calls are replaced by ours ([`interface`] reads what they say, [`items`] writes ours); everything
//! else, the structs, enums, lists and constants, stays. Such code is changed only where it reaches into a stock
//! client (a setter of a capability field takes the client's hook out through the trait instead), and where it
//! would not compile.
//!
//! | file | what |
//! | --- | --- |
//! | [`interface`] | an interface, as the stock generator's items describe it |
//! | [`items`] | our items for an interface |
//! | [`bases`] | the interfaces that an interface extends |
//! | [`facts`] | what is known of methods from the schema alone |
//! | [`placeholders`] | types that the stock generator was given placeholders for |
//! | [`schemas`] | the schemas that the code embeds |
//! | [`keywords`] | names that the stock generator does not know to be keywords |
//! | [`shadows`] | names that the schema takes from the prelude |
//! | [`unions`] | what does not compile of a union |
//! | [`enums`] | what does not compile of an enum |
//! | [`pipelines`] | what may be asked of the type parameters of a generic pipeline |

mod bases;
mod enums;
mod facts;
mod interface;
mod items;
mod keywords;
mod pipelines;
mod placeholders;
mod schemas;
mod shadows;
mod unions;

use std::fmt::Display;

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::visit_mut::{self, VisitMut};
use syn::{Expr, Ident, ImplItem, Item, Member, Type};

use crate::prepare::names::snake;
use crate::prepare::{Kind, Prepared, Suspect};
use facts::Facts;
use interface::Interface;

/// Rewrites the code of one file, without its header of comments. It has no accessors of what was left out.
///
/// # Errors
/// If the code is not what the stock generator is known to write.
pub(crate) fn splice(source: &str, prepared: &Prepared, left_out: &[&Suspect]) -> Result<String, String> {
    let facts = prepared.reader().and_then(Facts::of).map_err(|e| e.to_string())?;
    let unread = |e: &dyn Display| format!("the stock code does not parse: {e}");
    let tokens: TokenStream = source.parse().map_err(|e| unread(&e))?;
    let mut file: syn::File = syn::parse2(keywords::escape(tokens)).map_err(|e| unread(&e))?;
    placeholders::replace(&mut file);
    schemas::restore(&mut file, prepared.embedded());
    HookSetters.visit_file_mut(&mut file);
    mend(&mut file.items, left_out)?;
    pipelines::split(&mut file.items);
    replace_interfaces(&mut file.items, &facts)?;
    Ok(prettyplease::unparse(&file))
}

/// Changes what would not compile, in a module and those within.
fn mend(items: &mut Vec<Item>, left_out: &[&Suspect]) -> Result<(), String> {
    for item in items.iter_mut() {
        if let Item::Mod(module) = item {
            if let Some((_, items)) = &mut module.content {
                mend(items, left_out)?;
            }
        }
    }
    unions::mend(items);
    enums::mend(items);
    shadows::mend(items);
    let parameters = type_parameters(items);
    for item in items.iter_mut() {
        match item {
            // A constant is the same for all arguments of the scope around it.
            Item::Static(item) => Unbound { parameters: &parameters }.visit_type_mut(&mut item.ty),
            Item::Const(item) => Unbound { parameters: &parameters }.visit_type_mut(&mut item.ty),
            _ => {}
        }
    }
    if !left_out.is_empty()
        && items.iter().any(|item| matches!(item, Item::Struct(item) if item.ident == "Builder"))
    {
        let id = interface::type_id(items)?;
        let fields =
            left_out.iter().filter(|member| member.scope == id && matches!(member.kind, Kind::Field(_)));
        let fields: Vec<String> = fields.map(|member| snake(&member.name)).collect();
        remove_accessors(items, &fields);
    }
    Ok(())
}

/// Removes the accessors of fields, which are those of fields without a type.
fn remove_accessors(items: &mut [Item], fields: &[String]) {
    for item in items {
        if let Item::Impl(item) = item {
            item.items.retain(|item| match item {
                ImplItem::Fn(function) => {
                    let name = function.sig.ident.to_string();
                    let of = name.strip_prefix("get_").or_else(|| name.strip_prefix("set_"));
                    !of.is_some_and(|of| fields.iter().any(|field| field == of))
                }
                _ => true,
            });
        }
    }
}

/// The type parameters of the struct or interface that a module belongs to.
fn type_parameters(items: &[Item]) -> Vec<Ident> {
    let owned = items.iter().find_map(|item| match item {
        Item::Struct(item) if item.ident == "Owned" => Some(item),
        _ => None,
    });
    let parameters = owned.into_iter().flat_map(|owned| owned.generics.type_params());
    parameters.map(|parameter| parameter.ident.clone()).collect()
}

/// Replaces type parameters where nothing says what they are.
struct Unbound<'a> {
    parameters: &'a [Ident],
}

impl VisitMut for Unbound<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        match ty {
            Type::Path(path) if self.parameters.iter().any(|parameter| path.path.is_ident(parameter)) => {
                *ty = syn::parse_quote!(::capnp::any_pointer::Owned);
            }
            _ => visit_mut::visit_type_mut(self, ty),
        }
    }
}

/// Whether a type parameter stands among tokens. What follows `::` is none.
fn mentions(tokens: TokenStream, parameter: &Ident) -> bool {
    let mut after_path = false;
    tokens.into_iter().any(|token| {
        let in_path = std::mem::replace(&mut after_path, false);
        match token {
            TokenTree::Ident(ident) => ident == *parameter && !in_path,
            TokenTree::Group(group) => mentions(group.stream(), parameter),
            TokenTree::Punct(punct) => {
                after_path = punct.as_char() == ':';
                false
            }
            TokenTree::Literal(_) => false,
        }
    })
}

fn replace_interfaces(items: &mut Vec<Item>, facts: &Facts) -> Result<(), String> {
    for item in items.iter_mut() {
        if let Item::Mod(module) = item {
            let name = module.ident.to_string();
            if let Some((_, items)) = &mut module.content {
                replace_interfaces(items, facts).map_err(|why| within(&name, &why))?;
            }
        }
    }
    if items.iter().any(interface::is_client) {
        let interface = Interface::of(items, facts)?;
        let ours = items::of(&interface)?;
        let first = items.iter().position(interface::is_stock).unwrap_or(0);
        items.retain(|item| !interface::is_stock(item));
        items.splice(first..first, ours);
    }
    Ok(())
}

/// Says in which module something was found, the outermost first.
fn within(module: &str, why: &str) -> String {
    let path = why.strip_prefix("in `").unwrap_or("");
    match path.split_once("`: ") {
        Some((inner, why)) => format!("in `{module}::{inner}`: {why}"),
        None => format!("in `{module}`: {why}"),
    }
}

/// Replaces `client.client.hook` by what any client gives its hook through. (In the stock clients' own impls it
/// does no harm: those that hold it are dropped, but for one that becomes ours that way.)
struct HookSetters;

impl VisitMut for HookSetters {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        visit_mut::visit_expr_mut(self, expr);
        if let Some(client) = taken_apart(expr) {
            let hook = quote!(::capnp::capability::FromClientHook::into_client_hook(#client));
            *expr = syn::parse_quote!(#hook);
        }
    }
}

/// The name of the client in an expression of the form `name.client.hook`.
fn taken_apart(expr: &Expr) -> Option<syn::Ident> {
    let Expr::Field(hook) = expr else { return None };
    let Expr::Field(client) = &*hook.base else { return None };
    let named = |member: &Member, name: &str| matches!(member, Member::Named(ident) if ident == name);
    if !named(&hook.member, "hook") || !named(&client.member, "client") {
        return None;
    }
    match &*client.base {
        Expr::Path(path) => path.path.get_ident().filter(|ident| *ident != "self").cloned(),
        _ => None,
    }
}
