//! The enum `Which` of a struct with a union.
//!
//! The stock generator brings its variants into the module of the struct, also where the module has an item of that
//! name: then the variant is called by its path, `Which::Reader`. It gives the enum no type parameter for a variant
//! that holds a client, though the client may have some. And its aliases `WhichReader` and `WhichBuilder` may have
//! type parameters that they do not use, or lack some that they do.

use std::collections::HashSet;

use proc_macro2::Span;
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};
use syn::{
    AngleBracketedGenericArguments, Expr, GenericArgument, GenericParam, Generics, Ident, ImplItem, Item,
    ItemEnum, ItemType, Path, PathArguments, ReturnType, Type, UseTree,
};

use super::{mentions, type_parameters};

/// Mends the union of the struct whose module has these items, if it has one.
pub(super) fn mend(items: &mut Vec<Item>) {
    let parameters = type_parameters(items);
    let Some(which) = items.iter_mut().find_map(|item| match item {
        Item::Enum(item) if item.ident == "Which" => Some(item),
        _ => None,
    }) else {
        return;
    };
    if which.attrs.iter().any(|attribute| attribute.path().is_ident("repr")) {
        // An enum of the schema.
        return;
    }
    let clients = parametrize(which, &parameters);
    let variants: Vec<Ident> = which.variants.iter().map(|variant| variant.ident.clone()).collect();
    for item in items.iter_mut() {
        if let Item::Type(alias) = item {
            if alias.ident == "WhichReader" || alias.ident == "WhichBuilder" {
                complete(alias, &clients, &parameters);
            }
        }
    }
    write_returned(items);
    hide(items, &variants);
}

/// Makes each type of a variant that mentions type parameters of the struct a parameter of the enum. Returns those types.
fn parametrize(which: &mut ItemEnum, parameters: &[Ident]) -> Vec<Type> {
    let mut types = Vec::new();
    for field in which.variants.iter_mut().flat_map(|variant| variant.fields.iter_mut()) {
        let own = which
            .generics
            .type_params()
            .any(|own| matches!(&field.ty, Type::Path(path) if path.path.is_ident(&own.ident)));
        if !own && parameters.iter().any(|parameter| mentions(field.ty.to_token_stream(), parameter)) {
            let count = which.generics.params.len();
            let parameter = Ident::new(&format!("A{count}"), Span::call_site());
            which.generics.params.push(syn::parse_quote!(#parameter));
            types.push(std::mem::replace(&mut field.ty, syn::parse_quote!(#parameter)));
        }
    }
    types
}

/// Adds the types of clients to an alias, and gives it the parameters that it uses.
fn complete(alias: &mut ItemType, clients: &[Type], parameters: &[Ident]) {
    if let Type::Path(path) = &mut *alias.ty {
        if let Some(last) = path.path.segments.last_mut().filter(|_| !clients.is_empty()) {
            if last.arguments.is_none() {
                last.arguments = PathArguments::AngleBracketed(syn::parse_quote!(<>));
            }
            if let PathArguments::AngleBracketed(arguments) = &mut last.arguments {
                arguments.args.extend(clients.iter().cloned().map(GenericArgument::Type));
            }
        }
    }
    let mut generics = Generics::default();
    generics.params.extend(alias.generics.lifetimes().cloned().map(GenericParam::Lifetime));
    let used = parameters.iter().filter(|parameter| mentions(alias.ty.to_token_stream(), parameter));
    generics.params.extend(used.map(|used| -> GenericParam { syn::parse_quote!(#used) }));
    if !generics.params.is_empty() {
        generics.lt_token = Some(Default::default());
        generics.gt_token = Some(Default::default());
    }
    alias.generics = generics;
}

/// Gives the aliases their parameters where `which` returns them.
fn write_returned(items: &mut [Item]) {
    let aliases: Vec<(Ident, Generics)> = items
        .iter()
        .filter_map(|item| match item {
            Item::Type(alias) => Some((alias.ident.clone(), alias.generics.clone())),
            _ => None,
        })
        .collect();
    for function in which_functions(items) {
        if let ReturnType::Type(_, ty) = &mut function.sig.output {
            Returned { aliases: &aliases }.visit_type_mut(ty);
        }
    }
}

struct Returned<'a> {
    aliases: &'a [(Ident, Generics)],
}

impl VisitMut for Returned<'_> {
    fn visit_path_mut(&mut self, path: &mut Path) {
        visit_mut::visit_path_mut(self, path);
        let Some(first) = path.segments.first_mut() else { return };
        if let Some((_, generics)) = self.aliases.iter().find(|(alias, _)| *alias == first.ident) {
            let arguments: Vec<GenericArgument> = generics
                .params
                .iter()
                .map(|parameter| match parameter {
                    GenericParam::Lifetime(lifetime) => GenericArgument::Lifetime(lifetime.lifetime.clone()),
                    GenericParam::Type(parameter) => {
                        let ident = &parameter.ident;
                        GenericArgument::Type(syn::parse_quote!(#ident))
                    }
                    GenericParam::Const(parameter) => {
                        let ident = &parameter.ident;
                        GenericArgument::Const(syn::parse_quote!(#ident))
                    }
                })
                .collect();
            let arguments: AngleBracketedGenericArguments = syn::parse_quote!(<#(#arguments),*>);
            first.arguments = match arguments.args.is_empty() {
                true => PathArguments::None,
                false => PathArguments::AngleBracketed(arguments),
            };
        }
    }
}

/// Calls variants by their paths if the module has other items of their names.
fn hide(items: &mut Vec<Item>, variants: &[Ident]) {
    let taken: HashSet<String> = items.iter().filter_map(name).map(ToString::to_string).collect();
    let hidden: Vec<&Ident> =
        variants.iter().filter(|variant| taken.contains(&variant.to_string())).collect();
    if hidden.is_empty() {
        return;
    }
    items.retain_mut(|item| match item {
        Item::Use(item) => keep(&mut item.tree, &hidden),
        _ => true,
    });
    for function in which_functions(items) {
        Hidden { names: &hidden }.visit_block_mut(&mut function.block);
    }
}

/// Takes names out of a `use`. Returns whether any are left.
fn keep(tree: &mut UseTree, hidden: &[&Ident]) -> bool {
    match tree {
        UseTree::Path(path) => keep(&mut path.tree, hidden),
        UseTree::Name(name) => !hidden.contains(&&name.ident),
        UseTree::Group(group) => {
            let kept = std::mem::take(&mut group.items).into_iter();
            group.items = kept.filter_map(|mut tree| keep(&mut tree, hidden).then_some(tree)).collect();
            !group.items.is_empty()
        }
        _ => true,
    }
}

struct Hidden<'a> {
    names: &'a [&'a Ident],
}

impl VisitMut for Hidden<'_> {
    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        visit_mut::visit_expr_mut(self, expr);
        if let Expr::Path(path) = expr {
            if let Some(name) = path.path.get_ident().filter(|name| self.names.contains(name)) {
                *expr = syn::parse_quote!(self::Which::#name);
            }
        }
    }
}

fn which_functions(items: &mut [Item]) -> impl Iterator<Item = &mut syn::ImplItemFn> {
    let functions = items.iter_mut().filter_map(|item| match item {
        Item::Impl(item) if item.trait_.is_none() => Some(&mut item.items),
        _ => None,
    });
    functions.flatten().filter_map(|item| match item {
        ImplItem::Fn(function) if function.sig.ident == "which" => Some(function),
        _ => None,
    })
}

fn name(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Mod(item) => Some(&item.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        _ => None,
    }
}
