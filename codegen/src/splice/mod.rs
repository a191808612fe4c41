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
//! | [`keywords`] | names that the stock generator does not know to be keywords |
//! | [`pipelines`] | what may be asked of the type parameters of a generic pipeline |

mod bases;
mod facts;
mod interface;
mod items;
mod keywords;
mod pipelines;

use std::fmt::Display;

use capnp::schema_capnp::code_generator_request;
use proc_macro2::TokenStream;
use quote::quote;
use syn::visit_mut::{self, VisitMut};
use syn::{Expr, Item, Member};

use facts::Facts;
use interface::Interface;

/// Rewrites the code of one file, without its header of comments.
///
/// # Errors
/// If the code is not what the stock generator is known to write.
pub(crate) fn splice(source: &str, request: code_generator_request::Reader<'_>) -> Result<String, String> {
    let facts = Facts::of(request).map_err(|e| e.to_string())?;
    let unread = |e: &dyn Display| format!("the stock code does not parse: {e}");
    let tokens: TokenStream = source.parse().map_err(|e| unread(&e))?;
    let mut file: syn::File = syn::parse2(keywords::escape(tokens)).map_err(|e| unread(&e))?;
    HookSetters.visit_file_mut(&mut file);
    pipelines::split(&mut file.items);
    replace_interfaces(&mut file.items, &facts)?;
    Ok(prettyplease::unparse(&file))
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
