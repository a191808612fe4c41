//! The embedded schemas, where the stock generator was given others.

use proc_macro2::Literal;
use std::collections::HashMap;

use syn::visit_mut::VisitMut;
use syn::{Expr, ExprLit, ItemStatic, Lit};

/// Puts the original schemas in the place of changed ones. `embedded` has their words by their IDs.
pub(super) fn restore(file: &mut syn::File, embedded: &HashMap<u64, Vec<u8>>) {
    if !embedded.is_empty() {
        Restore { embedded }.visit_file_mut(file);
    }
}

struct Restore<'a> {
    embedded: &'a HashMap<u64, Vec<u8>>,
}

impl VisitMut for Restore<'_> {
    fn visit_item_static_mut(&mut self, item: &mut ItemStatic) {
        if item.ident != "ENCODED_NODE" {
            return;
        }
        if let Some(bytes) = id(&item.expr).and_then(|id| self.embedded.get(&id)) {
            let words = bytes.chunks_exact(8).map(|word| {
                let bytes = word.iter().map(|byte| Literal::u8_unsuffixed(*byte));
                quote::quote!(::capnp::word(#(#bytes),*))
            });
            let count = Literal::usize_unsuffixed(bytes.len() / 8);
            *item.expr = syn::parse_quote!([#(#words),*]);
            *item.ty = syn::parse_quote!([::capnp::Word; #count]);
        }
    }
}

/// The ID of an encoded node: the word after the root pointer.
fn id(words: &Expr) -> Option<u64> {
    let Expr::Array(words) = words else { return None };
    let Expr::Call(word) = words.elems.iter().nth(1)? else { return None };
    let bytes = word.args.iter().map(|byte| match byte {
        Expr::Lit(ExprLit { lit: Lit::Int(byte), .. }) => byte.base10_parse().ok(),
        _ => None,
    });
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
