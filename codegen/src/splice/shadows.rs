//! Paths of the stock generator that mean something else where the schema declares an item of that name.

use quote::format_ident;
use syn::visit_mut::{self, VisitMut};
use syn::{Item, ItemMod, Path};

/// Names of the prelude that the stock generator uses as such.
const PRELUDE: &[(&str, &str)] = &[("From", "convert"), ("Option", "option")];

/// Makes the paths absolute in the items of a module, where the module has an item of that name.
pub(super) fn mend(items: &mut [Item]) {
    let has = |name: &str| {
        items.iter().any(|item| match item {
            Item::Mod(item) => item.ident == name,
            Item::Enum(item) => item.ident == name,
            _ => false,
        })
    };
    let core = has("core");
    let prelude: Vec<_> = PRELUDE.iter().copied().filter(|(name, _)| has(name)).collect();
    if core || !prelude.is_empty() {
        let mut absolute = Absolute { core, prelude };
        items.iter_mut().for_each(|item| absolute.visit_item_mut(item));
    }
}

struct Absolute {
    core: bool,
    prelude: Vec<(&'static str, &'static str)>,
}

impl VisitMut for Absolute {
    /// The names in a module within are its own.
    fn visit_item_mod_mut(&mut self, _: &mut ItemMod) {}

    fn visit_path_mut(&mut self, path: &mut Path) {
        visit_mut::visit_path_mut(self, path);
        if path.leading_colon.is_some() {
            return;
        }
        let count = path.segments.len();
        let Some(first) = path.segments.first() else { return };
        if self.core && count > 1 && first.ident == "core" {
            path.leading_colon = Some(Default::default());
        } else if let Some((name, module)) = self.prelude.iter().find(|(name, _)| first.ident == name) {
            if !first.arguments.is_none() {
                let (name, module) = (format_ident!("{name}"), format_ident!("{module}"));
                let arguments = &first.arguments;
                *path = syn::parse_quote!(::core::#module::#name #arguments);
            }
        }
    }
}
