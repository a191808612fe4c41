//! The source of the crate as a tree of modules, as a build without features sees it, and what paths in it mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::TokenStream;
use syn::{Attribute, Ident, Item, Meta, UseTree, Visibility};

use crate::expand::expand;

/// Macros whose uses define nothing public.
const PRIVATE_MACROS: &[&str] = &["discard", "numbers", "object", "per_thread", "root", "thread_local"];

/// An item by the path of its module and its name.
pub type Place = (Vec<String>, String);

#[derive(Default)]
pub struct Module {
    /// All items but modules, uses and macros, by the names of those that have one.
    pub items: Vec<(Option<String>, Item)>,
    /// What is brought in by `use`: the name here, the path, and whether it is public.
    pub uses: Vec<(String, Vec<String>, bool)>,
    /// The modules in it, and whether they are public.
    pub modules: BTreeMap<String, bool>,
}

#[derive(Default)]
pub struct Source {
    pub modules: BTreeMap<Vec<String>, Module>,
}

/// The path of what has this name in a module.
pub fn within(module: &[String], name: &str) -> Vec<String> {
    module.iter().map(String::as_str).chain([name]).map(str::to_owned).collect()
}

pub fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether an item is there in a build on Linux that names no feature.
pub fn is_there(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).all(|attribute| {
        match &attribute.meta {
            Meta::List(list) => holds(&list.parse_args().expect("a condition")),
            _ => panic!("a cfg without a condition"),
        }
    })
}

fn holds(condition: &Meta) -> bool {
    let inner = |list: &syn::MetaList| {
        let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
        list.parse_args_with(parser).expect("conditions").into_iter().collect::<Vec<_>>()
    };
    match condition {
        Meta::Path(path) => path.is_ident("unix"),
        Meta::NameValue(value) => quote::quote!(#value).to_string() == "target_os = \"linux\"",
        Meta::List(list) if list.path.is_ident("not") => !inner(list).iter().any(holds),
        Meta::List(list) if list.path.is_ident("any") => inner(list).iter().any(holds),
        Meta::List(list) if list.path.is_ident("all") => inner(list).iter().all(holds),
        other => panic!("a condition that is not known: {}", quote::quote!(#other)),
    }
}

fn item_parts(item: &Item) -> Option<(&[Attribute], Option<&Ident>)> {
    Some(match item {
        Item::Const(i) => (&i.attrs, Some(&i.ident)),
        Item::Enum(i) => (&i.attrs, Some(&i.ident)),
        Item::Fn(i) => (&i.attrs, Some(&i.sig.ident)),
        Item::Impl(i) => (&i.attrs, None),
        Item::Static(i) => (&i.attrs, Some(&i.ident)),
        Item::Struct(i) => (&i.attrs, Some(&i.ident)),
        Item::Trait(i) => (&i.attrs, Some(&i.ident)),
        Item::Type(i) => (&i.attrs, Some(&i.ident)),
        _ => return None,
    })
}

impl Source {
    pub fn read(root: &Path) -> Source {
        let mut source = Source::default();
        source.add_file(&root.join("src/lib.rs"), &root.join("src"), Vec::new());
        source
    }

    fn add_file(&mut self, file: &Path, folder: &Path, path: Vec<String>) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.add(parsed.items, folder, path);
    }

    fn add(&mut self, items: Vec<Item>, folder: &Path, path: Vec<String>) {
        let mut module = Module::default();
        let mut macros: BTreeMap<String, TokenStream> = BTreeMap::new();
        let mut items: std::collections::VecDeque<Item> = items.into();
        while let Some(item) = items.pop_front() {
            match item {
                Item::Mod(child) if is_there(&child.attrs) => {
                    let name = child.ident.to_string();
                    module.modules.insert(name.clone(), is_public(&child.vis));
                    let (path, inner) = (within(&path, &name), folder.join(&name));
                    match child.content {
                        Some((_, items)) => self.add(items, &inner, path),
                        None if name == "generated" => {}
                        None => {
                            let file = folder.join(format!("{name}.rs"));
                            let file = if file.exists() { file } else { inner.join("mod.rs") };
                            self.add_file(&file, &inner, path);
                        }
                    }
                }
                Item::Use(of) if is_there(&of.attrs) => {
                    add_uses(&of.tree, Vec::new(), is_public(&of.vis), &mut module.uses);
                }
                Item::Macro(call) if is_there(&call.attrs) => {
                    let name = call.mac.path.segments.last().expect("a name").ident.to_string();
                    if let Some(defined) = call.ident {
                        macros.insert(defined.to_string(), call.mac.tokens);
                    } else if PRIVATE_MACROS.contains(&&*name) {
                        continue;
                    } else if let Some(rules) = macros.get(&name) {
                        let expanded = expand(rules.clone(), call.mac.tokens);
                        let expanded = expanded.unwrap_or_else(|| panic!("{path:?}: {name}! fits no rule"));
                        let expanded: syn::File =
                            syn::parse2(expanded).unwrap_or_else(|e| panic!("{path:?}: {name}!: {e}"));
                        items.extend(expanded.items);
                    } else {
                        panic!("{path:?}: there is no macro {name}! here");
                    }
                }
                item => {
                    let Some((attributes, name)) = item_parts(&item) else { continue };
                    if is_there(attributes) {
                        module.items.push((name.map(Ident::to_string), item));
                    }
                }
            }
        }
        self.modules.insert(path, module);
    }

    /// What a path means in a module; `None` if it leads out of this crate.
    pub fn resolve(&self, at: &[String], path: &[String]) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let up = |times: usize| at[..at.len().checked_sub(times).expect("a parent")].to_vec();
        match first.as_str() {
            "crate" => return self.walk(Vec::new(), rest),
            "self" => return self.walk(up(0), rest),
            "super" => return self.resolve(&up(1), &[&["self".to_owned()], rest].concat()),
            _ => {}
        }
        self.walk(at.to_vec(), path)
    }

    fn walk(&self, at: Vec<String>, path: &[String]) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        if first == "super" {
            return self.walk(at[..at.len() - 1].to_vec(), rest);
        }
        let module = self.modules.get(&at)?;
        if module.modules.contains_key(first) && !rest.is_empty() {
            return self.walk(within(&at, first), rest);
        }
        if rest.is_empty() && module.items.iter().any(|(name, _)| name.as_ref() == Some(first)) {
            return Some((at, first.clone()));
        }
        let used = module.uses.iter().find(|(name, ..)| name == first);
        if let Some((_, to, _)) = used {
            let to = [&to[..], rest].concat();
            // A name that is brought in under itself comes from another crate.
            return if to.first() == Some(first) && !module.modules.contains_key(first) {
                None
            } else {
                self.resolve(&at, &to)
            };
        }
        let globs = module.uses.iter().filter(|(name, ..)| name == "*");
        globs.filter_map(|(_, to, _)| self.resolve(&at, &[&to[..], path].concat())).next()
    }

    pub fn item(&self, (module, name): &Place) -> &Item {
        let items = &self.modules[module].items;
        let found = items.iter().find(|(of, _)| of.as_ref() == Some(name));
        &found.unwrap_or_else(|| panic!("there is no {name} in {module:?}")).1
    }
}

fn add_uses(tree: &UseTree, path: Vec<String>, public: bool, to: &mut Vec<(String, Vec<String>, bool)>) {
    let with = |name: &Ident| within(&path, &name.to_string());
    match tree {
        UseTree::Path(of) => add_uses(&of.tree, with(&of.ident), public, to),
        UseTree::Group(of) => of.items.iter().for_each(|tree| add_uses(tree, path.clone(), public, to)),
        UseTree::Glob(_) => to.push(("*".into(), path, public)),
        UseTree::Name(of) if of.ident == "self" => {
            let name = path.last().expect("self of a path").clone();
            to.push((name, path, public));
        }
        UseTree::Name(of) => to.push((of.ident.to_string(), with(&of.ident), public)),
        UseTree::Rename(of) => to.push((of.rename.to_string(), with(&of.ident), public)),
    }
}
