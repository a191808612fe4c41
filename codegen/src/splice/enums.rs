//! The enums of a schema.
//!
//! An enum never has type parameters, but if the scope around it has some, the stock generator gives them to a function
//! in the enum's private module, where nothing says what they are. That module may also be called as another module
//! beside it. And an enum without values does not compile: Rust has no such enum of a given size.

use std::collections::HashSet;

use syn::visit_mut::{self, VisitMut};
use syn::{Expr, Ident, Item, ItemEnum, ItemMod, Path, Visibility};

use super::Unbound;

/// Mends the enums among the items of a module.
pub(super) fn mend(items: &mut [Item]) {
    let public: HashSet<String> = items.iter().filter_map(public_module).collect();
    // The items of an enum follow it, and its private module is the last of them.
    let mut started = None;
    for at in 0..items.len() {
        if let Item::Enum(item) = &mut items[at] {
            if is_of_schema(item) {
                give_a_value(item);
                started = Some(at);
            }
        }
        let Some(from) = started else { continue };
        let Item::Mod(module) = &mut items[at] else { continue };
        if !is_private(module) {
            continue;
        }
        bind(module);
        let name = module.ident.clone();
        if public.contains(&name.to_string()) {
            let free = Ident::new(&format!("_{name}"), name.span());
            module.ident = free.clone();
            let mut rename = Rename { from: &name, to: &free };
            items[from..at].iter_mut().for_each(|item| rename.visit_item_mut(item));
        }
        started = None;
    }
}

fn public_module(item: &Item) -> Option<String> {
    match item {
        Item::Mod(module) if !matches!(module.vis, Visibility::Inherited) => Some(module.ident.to_string()),
        _ => None,
    }
}

fn is_private(module: &ItemMod) -> bool {
    matches!(module.vis, Visibility::Inherited) && module.ident != "_private"
}

fn is_of_schema(item: &ItemEnum) -> bool {
    item.attrs.iter().any(|attribute| attribute.path().is_ident("repr"))
}

/// Gives an enum without values one that no message has.
fn give_a_value(item: &mut ItemEnum) {
    if item.variants.is_empty() {
        item.variants.push(syn::parse_quote!(
            #[doc(hidden)]
            __Nothing = 0xffff
        ));
    }
}

/// Takes the type parameters from the functions of an enum's private module.
fn bind(module: &mut ItemMod) {
    for item in module.content.iter_mut().flat_map(|(_, items)| items) {
        if let Item::Fn(function) = item {
            let parameters: Vec<Ident> =
                function.sig.generics.type_params().map(|parameter| parameter.ident.clone()).collect();
            if !parameters.is_empty() {
                function.sig.generics = Default::default();
                Unbound { parameters: &parameters }.visit_block_mut(&mut function.block);
            }
        }
    }
}

/// Renames the first part of paths of two.
struct Rename<'a> {
    from: &'a Ident,
    to: &'a Ident,
}

impl VisitMut for Rename<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        visit_mut::visit_expr_mut(self, expr);
        if let Expr::Path(path) = expr {
            rename(&mut path.path, self.from, self.to);
        }
    }
}

fn rename(path: &mut Path, from: &Ident, to: &Ident) {
    if path.leading_colon.is_none() && path.segments.len() == 2 && path.segments[0].ident == *from {
        path.segments[0].ident = to.clone();
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    #[test]
    fn a_private_module_makes_way_for_another() {
        let mut file: syn::File = syn::parse_quote! {
            pub mod kind { fn f() { kind::g() } }
            #[repr(u16)]
            pub enum Kind {}
            fn of() { a(&kind::ARENA, other::kind, kind::get_annotation_types) }
            mod kind { fn get_annotation_types<T>() where T: Owned { a::<T>() } }
        };
        mend(&mut file.items);
        let wanted: syn::File = syn::parse_quote! {
            pub mod kind { fn f() { kind::g() } }
            #[repr(u16)]
            pub enum Kind { #[doc(hidden)] __Nothing = 0xffff }
            fn of() { a(&_kind::ARENA, other::kind, _kind::get_annotation_types) }
            mod _kind { fn get_annotation_types() { a::<::capnp::any_pointer::Owned>() } }
        };
        assert_eq!(file.to_token_stream().to_string(), wanted.to_token_stream().to_string());
    }
}
