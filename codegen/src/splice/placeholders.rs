//! Types of placeholders, which the stock generator was given in place of others ([`types`] has the table).

use syn::visit_mut::{self, VisitMut};
use syn::{FnArg, GenericArgument, ImplItemFn, Path, PathArguments, PathSegment, Type};

use crate::prepare::types;

/// Puts the types in the place of their placeholders.
pub(super) fn replace(file: &mut syn::File) {
    Setters.visit_file_mut(file);
    Paths.visit_file_mut(file);
}

/// Setters of untyped capabilities take typed clients too.
struct Setters;

impl VisitMut for Setters {
    fn visit_impl_item_fn_mut(&mut self, function: &mut ImplItemFn) {
        let arguments = function.sig.inputs.iter_mut().filter_map(|input| match input {
            FnArg::Typed(argument) => Some(&mut *argument.ty),
            FnArg::Receiver(_) => None,
        });
        for ty in arguments {
            if matches!(ty, Type::Path(path) if placeholder(&path.path) == Some(("capability", "Client"))) {
                *ty = syn::parse_quote!(impl ::core::convert::Into<::capnp_threads::Client>);
                let typed = syn::parse_quote! {
                    let value: ::capnp_threads::Client = ::core::convert::Into::into(value);
                };
                function.block.stmts.insert(0, typed);
            }
        }
    }
}

struct Paths;

impl VisitMut for Paths {
    fn visit_path_mut(&mut self, path: &mut Path) {
        if let Some(last) = path.segments.last_mut() {
            if is_any_pointer_list(last) {
                let PathArguments::AngleBracketed(arguments) = &mut last.arguments else { return };
                arguments.args.pop();
                // What is left of `Reader<'a, P>` is `Reader<'a, >`.
                arguments.args.pop_punct();
                if arguments.args.is_empty() {
                    last.arguments = PathArguments::None;
                }
                let at = path.segments.len() - 2;
                path.segments[at].ident = syn::parse_quote!(any_pointer_list);
            }
        }
        match placeholder(path) {
            Some(("capability", "Client")) => *path = syn::parse_quote!(::capnp_threads::Client),
            // The type that the schema has for it, not that of an interface.
            Some(("capability" | "any_struct", "Owned")) => {
                *path = syn::parse_quote!(::capnp::any_pointer::Owned)
            }
            _ => {}
        }
        visit_mut::visit_path_mut(self, path);
    }
}

/// Whether it is the last of `::capnp::capability_list::Reader<'a, ANY_POINTER>` and its like.
fn is_any_pointer_list(last: &PathSegment) -> bool {
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return false };
    match arguments.args.last() {
        Some(GenericArgument::Type(Type::Path(path))) => {
            placeholder(&path.path) == Some(("any_pointer", "Client"))
        }
        _ => false,
    }
}

/// The placeholder that a path leads to, and which of its items.
fn placeholder(path: &Path) -> Option<(&'static str, &'static str)> {
    let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let [root, module, name, item] = &segments[..] else { return None };
    let known = |names: &[&'static str], name: &str| names.iter().copied().find(|known| *known == name);
    if root != types::CRATE || module != types::MODULE {
        return None;
    }
    Some((known(&["capability", "any_pointer", "any_struct"], name)?, known(&["Client", "Owned"], item)?))
}
