//! What may be asked of the type parameters of a generic pipeline.
//!
//! The stock generator asks of every parameter that something of its type can be called ahead, and that for all
//! getters of the pipeline. Text, data and lists do not fulfill it, so a struct with one of them as an argument would
//! have no getters at all. Here only those getters ask for it that need it. And the stock generator forgets that a
//! parameter which is an argument of an interface must be `Owned`.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericParam, Ident, ImplItem, Item, ItemImpl, Type, WhereClause};

/// Splits each pipeline's getters into those that need much of the parameters, and those that do not.
pub(super) fn split(items: &mut Vec<Item>) {
    let mut split_items = Vec::with_capacity(items.len());
    for mut item in items.drain(..) {
        match &mut item {
            Item::Mod(module) => {
                if let Some((_, items)) = &mut module.content {
                    split(items);
                }
            }
            Item::Impl(getters) if is_generic_pipeline(getters) => split_items.extend(modest(getters)),
            _ => {}
        }
        split_items.push(item);
    }
    *items = split_items;
}

fn is_generic_pipeline(item: &ItemImpl) -> bool {
    let of_pipeline = match &*item.self_ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Pipeline"),
        _ => false,
    };
    of_pipeline && item.trait_.is_none() && item.generics.type_params().next().is_some()
}

/// Takes out the getters that ask for nothing but `Owned`, if there are any.
fn modest(getters: &mut ItemImpl) -> Option<Item> {
    let owned = owned(getters);
    let mut modest = getters.clone();
    modest.generics.where_clause = Some(owned.clone());
    modest.items.retain(|item| !needs_more(item));
    getters.items.retain(needs_more);
    getters.generics.make_where_clause().predicates.extend(owned.predicates);
    (!modest.items.is_empty()).then_some(Item::Impl(modest))
}

fn owned(of: &ItemImpl) -> WhereClause {
    let names: Vec<&Ident> = of.generics.params.iter().filter_map(name).collect();
    syn::parse_quote!(where #(#names: ::capnp::traits::Owned + 'static),*)
}

fn name(parameter: &GenericParam) -> Option<&Ident> {
    match parameter {
        GenericParam::Type(parameter) => Some(&parameter.ident),
        _ => None,
    }
}

/// Whether the pipeline of a parameter stands in the getter's signature.
fn needs_more(item: &ImplItem) -> bool {
    match item {
        ImplItem::Fn(getter) => mentions(getter.sig.output.to_token_stream(), "Pipelined"),
        _ => true,
    }
}

fn mentions(tokens: TokenStream, name: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_ask_for_what_they_need() {
        let stock = "impl<T> Pipeline<T> where T: Pipelined {
            pub fn get_a(&self) -> <T as Pipelined>::Pipeline { a() }
            pub fn get_b(&self) -> b::Client<T> { b() }
        }
        impl Pipeline { pub fn get_c(&self) -> c::Client { c() } }";
        let mut file = syn::parse_file(stock).unwrap();
        split(&mut file.items);
        let code = prettyplease::unparse(&file);
        let wanted = "impl<T> Pipeline<T>
where
    T: ::capnp::traits::Owned + 'static,
{
    pub fn get_b(&self) -> b::Client<T> {
        b()
    }
}
impl<T> Pipeline<T>
where
    T: Pipelined,
    T: ::capnp::traits::Owned + 'static,
{
    pub fn get_a(&self) -> <T as Pipelined>::Pipeline {
        a()
    }
}
impl Pipeline {
    pub fn get_c(&self) -> c::Client {
        c()
    }
}
";
        assert_eq!(code, wanted);
    }
}
