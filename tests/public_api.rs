//! The public interface of the crate beside its committed listing, `tests/public_api.txt`: so no change of it goes unseen.
//!
//! The listing is made of the source text: each public item with its signature, under each path that users have for it, with
//! its public fields, variants, methods and trait implementations. It is that of a build without features, so hooks of
//! tests are not in it. Names in signatures are as in the source; what the compiler derives (`Send`, `Sync`) is for other
//! tests. `TIDY_WRITE=1 cargo test --test public_api` writes it anew: look at what has changed, and write that into
//! CHANGELOG.md.

#[path = "public_api/expand.rs"]
mod expand;
#[path = "public_api/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use quote::ToTokens;
use source::{is_public, is_there, within, Module, Place, Source};
use syn::visit_mut::VisitMut;
use syn::{parse_quote, Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, Visibility};

const LISTING: &str = "tests/public_api.txt";

#[test]
fn public_interface_is_the_committed_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listing = list(&Source::read(root));
    let file = root.join(LISTING);
    if std::env::var_os("TIDY_WRITE").is_some() {
        fs::write(&file, &listing).expect("the listing can be written");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed != listing {
        let (before, now) = (lines(&committed), lines(&listing));
        let gone = before.difference(&now).map(|line| format!("- {line}"));
        let come = now.difference(&before).map(|line| format!("+ {line}"));
        let changed: Vec<_> = gone.chain(come).collect();
        panic!(
            "the public interface is not that of {LISTING}:\n{}\nIf that is meant: TIDY_WRITE=1 cargo test --test \
             public_api, and a line in CHANGELOG.md",
            changed.join("\n")
        );
    }
}

/// The lines of a listing, each with the path that it stands under.
fn lines(listing: &str) -> BTreeSet<String> {
    let mut under = "";
    listing
        .lines()
        .map(|line| {
            under = line.strip_prefix("// ").unwrap_or(under);
            format!("{under}: {}", line.trim())
        })
        .collect()
}

/// What this test relies on: that it would see a change. (And no hook of tests is in the listing.)
#[test]
fn listing_has_signatures_and_no_hooks_of_tests() {
    let listing = list(&Source::read(Path::new(env!("CARGO_MANIFEST_DIR"))));
    for wanted in [
        "// capnp_threads::Client\n",
        "pub fn request(&self, interface_id: u64, method_id: u16) -> Request {}",
        "fn is_null(&self) -> bool {}",
        "impl Default for Client {}",
        // Of macros.
        "pub struct QuestionId(pub u32);",
        "pub fn cast<T>(self) -> Params<T> {}",
        "impl From<io::Error> for Error {}",
        "// capnp_threads::snapshot::QuestionEntry\n",
        "pub type Result<T, E = Error> = std::result::Result<T, E>;",
    ] {
        assert!(listing.contains(wanted), "`{wanted}` is not in the listing:\n{listing}");
    }
    for unwanted in ["testing", "fn manual", "fn run_task", "fn stepped", "capnp::private", "rpc_capnp"] {
        assert!(!listing.contains(unwanted), "`{unwanted}` is in the listing");
    }
}

fn list(source: &Source) -> String {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    find_public(source, &[], &[], &mut places);
    let public: BTreeSet<&Place> = places.values().collect();
    let mut impls: BTreeMap<Place, BTreeSet<String>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for (at, module) in &source.modules {
        for (_, item) in &module.items {
            let Item::Impl(item) = item else { continue };
            add_impl(source, at, item, &public, &mut impls, &mut others);
        }
    }
    let mut listing = String::from("// The public interface: see tests/public_api.rs.\n");
    for (path, place) in &places {
        listing += &format!("\n// {path}\n{}", print(shown(source.item(place).clone())));
        impls.get(place).into_iter().flatten().for_each(|text| listing += text);
    }
    listing += "\n// implementations for types of other crates\n";
    others.iter().for_each(|text| listing += text);
    listing
}

/// All items that have a public path, by that.
fn find_public(source: &Source, module: &[String], path: &[String], found: &mut BTreeMap<String, Place>) {
    let named = |name: &str| format!("capnp_threads::{}", within(path, name).join("::"));
    let here: &Module = &source.modules[module];
    for (name, item) in &here.items {
        if let (Some(name), true) = (name, visibility(item).is_some_and(is_public)) {
            found.insert(named(name), (module.to_vec(), name.clone()));
        }
    }
    for (name, _) in here.modules.iter().filter(|(_, public)| **public) {
        find_public(source, &within(module, name), &within(path, name), found);
    }
    for (name, to, _) in here.uses.iter().filter(|(.., public)| *public) {
        assert_ne!(name, "*", "{module:?}: name what is public");
        match source.resolve(module, to) {
            Some(place) => drop(found.insert(named(name), place)),
            // A module under another path.
            None => find_public(source, to, &within(path, name), found),
        }
    }
}

fn visibility(item: &Item) -> Option<&Visibility> {
    Some(match item {
        Item::Const(i) => &i.vis,
        Item::Enum(i) => &i.vis,
        Item::Fn(i) => &i.vis,
        Item::Static(i) => &i.vis,
        Item::Struct(i) => &i.vis,
        Item::Trait(i) => &i.vis,
        Item::Type(i) => &i.vis,
        _ => return None,
    })
}

/// An implementation, for the type that it is for, or if that is of another crate, in `others`.
fn add_impl(
    source: &Source,
    at: &[String],
    item: &ItemImpl,
    public: &BTreeSet<&Place>,
    impls: &mut BTreeMap<Place, BTreeSet<String>>,
    others: &mut BTreeSet<String>,
) {
    let place_of = |path: &syn::Path| {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        source.resolve(at, &names)
    };
    let of = match &*item.self_ty {
        Type::Path(path) => place_of(&path.path),
        Type::TraitObject(object) => object.bounds.iter().find_map(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => place_of(&bound.path),
            _ => None,
        }),
        _ => None,
    };
    let of_trait = item.trait_.as_ref().and_then(|(_, path, _)| place_of(path));
    let is_private = |place: &Option<Place>| place.as_ref().is_some_and(|place| !public.contains(place));
    if is_private(&of) || is_private(&of_trait) || item.attrs.iter().any(is_hidden) {
        return;
    }
    let item = shown_impl(item.clone());
    if item.trait_.is_none() && item.items.is_empty() {
        return;
    }
    let text = print(Item::Impl(item));
    match of {
        Some(of) => drop(impls.entry(of).or_default().insert(text)),
        None => drop(others.insert(text)),
    }
}

fn is_hidden(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc") && attribute.meta.to_token_stream().to_string() == "doc (hidden)"
}

/// The attributes that users rely on.
fn keep(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        ["non_exhaustive", "must_use", "derive", "deprecated"]
            .iter()
            .any(|name| attribute.path().is_ident(name))
    });
}

/// Leaves out what is no part of the interface: attributes, bodies, and private fields.
struct Shown;

impl VisitMut for Shown {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        keep(attributes);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.clear();
    }

    fn visit_fields_mut(&mut self, fields: &mut Fields) {
        syn::visit_mut::visit_fields_mut(self, fields);
        match fields {
            Fields::Named(named) => {
                let fields = std::mem::take(&mut named.named);
                let all = fields.len();
                named.named = fields.into_iter().filter(|field| is_public(&field.vis)).collect();
                if named.named.len() < all {
                    named.named.push(parse_quote!(private: _));
                }
            }
            Fields::Unnamed(unnamed) => {
                unnamed.unnamed.iter_mut().filter(|field| !is_public(&field.vis)).for_each(|field| {
                    field.vis = Visibility::Inherited;
                    field.ty = parse_quote!(_);
                });
            }
            Fields::Unit => {}
        }
    }

    fn visit_variant_mut(&mut self, variant: &mut syn::Variant) {
        // All fields of a variant are public.
        keep(&mut variant.attrs);
        variant.fields.iter_mut().for_each(|field| keep(&mut field.attrs));
    }
}

fn shown(mut item: Item) -> Item {
    if let Item::Trait(item) = &mut item {
        item.items.iter_mut().for_each(|item| {
            if let TraitItem::Fn(function) = item {
                Shown.visit_trait_item_fn_mut(function);
            }
        });
    }
    Shown.visit_item_mut(&mut item);
    item
}

fn shown_impl(mut item: ItemImpl) -> ItemImpl {
    let of_trait = item.trait_.is_some();
    item.items.retain(|item| match item {
        ImplItem::Fn(i) => !of_trait && is_public(&i.vis) && is_there(&i.attrs),
        ImplItem::Const(i) => of_trait || (is_public(&i.vis) && is_there(&i.attrs)),
        ImplItem::Type(_) => true,
        _ => false,
    });
    Shown.visit_item_impl_mut(&mut item);
    item
}

fn print(item: Item) -> String {
    prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items: vec![item] })
}
