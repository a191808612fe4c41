//! Our items for an interface.

use proc_macro2::TokenStream;
use quote::{quote, ToTokens};
use syn::{Ident, Item};

use super::bases::Base;
use super::interface::{Interface, Method};
use super::mentions;

/// The items that take the place of the stock generator's.
pub(super) fn of(interface: &Interface) -> Result<Vec<Item>, String> {
    let items = Items { interface, generics: Generics::of(interface) };
    let aliases = interface.methods.iter().map(|method| items.aliases(method));
    let upcasts = interface.bases.iter().map(|base| items.upcast(base));
    let parts = [
        items.client(),
        items.client_impls(),
        items.requests(),
        aliases.collect(),
        items.server(),
        items.dispatch(),
        upcasts.collect(),
    ];
    let tokens: TokenStream = parts.into_iter().collect();
    let file = syn::parse2::<syn::File>(tokens).map_err(|e| format!("our own items do not parse: {e}"))?;
    Ok(file.items)
}

/// The interface's type parameters, as they stand in different places. All are empty if there are none.
struct Generics {
    /// `<T, U>`
    list: TokenStream,
    /// `T, U,`, to follow other parameters
    more: TokenStream,
    /// `where T: …, U: …`
    bounds: TokenStream,
    /// A field that mentions them, and its value.
    phantom: TokenStream,
    phantom_value: TokenStream,
}

impl Generics {
    fn of(interface: &Interface) -> Self {
        let (params, bounds) = (&interface.params, &interface.bounds);
        if params.is_empty() {
            return Generics {
                list: quote!(),
                more: quote!(),
                bounds: quote!(),
                phantom: quote!(),
                phantom_value: quote!(),
            };
        }
        Generics {
            list: quote!(<#(#params),*>),
            more: quote!(#(#params,)*),
            bounds: quote!(where #(#bounds),*),
            phantom: quote!(_phantom: ::core::marker::PhantomData<fn() -> (#(#params,)*)>,),
            phantom_value: quote!(_phantom: ::core::marker::PhantomData,),
        }
    }
}

struct Items<'a> {
    interface: &'a Interface,
    generics: Generics,
}

impl Items<'_> {
    fn client(&self) -> TokenStream {
        let Generics { list, phantom, .. } = &self.generics;
        let doc = documented(
            &format!("A client of the interface `{}`.", self.interface.name),
            &self.interface.comment,
        );
        quote! {
            #doc
            pub struct Client #list {
                client: ::capnp_threads::Client,
                #phantom
            }
        }
    }

    /// What makes a client one: conversions, equality, the hook through which structs hold it.
    fn client_impls(&self) -> TokenStream {
        let Generics { list, bounds, phantom_value, .. } = &self.generics;
        quote! {
            impl #list ::capnp_threads::Capability for Client #list #bounds {}
            impl #list ::core::convert::From<::capnp_threads::Client> for Client #list {
                fn from(client: ::capnp_threads::Client) -> Self {
                    Self { client, #phantom_value }
                }
            }
            impl #list ::core::convert::From<Client #list> for ::capnp_threads::Client {
                fn from(client: Client #list) -> Self {
                    client.client
                }
            }
            impl #list ::core::convert::AsRef<::capnp_threads::Client> for Client #list {
                fn as_ref(&self) -> &::capnp_threads::Client {
                    &self.client
                }
            }
            impl #list ::core::clone::Clone for Client #list {
                fn clone(&self) -> Self {
                    Self { client: ::core::clone::Clone::clone(&self.client), #phantom_value }
                }
            }
            impl #list ::core::cmp::PartialEq for Client #list {
                fn eq(&self, other: &Self) -> bool {
                    self.client == other.client
                }
            }
            impl #list ::core::cmp::Eq for Client #list {}
            impl #list ::core::fmt::Debug for Client #list {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    ::core::fmt::Debug::fmt(&self.client, f)
                }
            }
            impl #list ::capnp::capability::FromClientHook for Client #list {
                fn new(hook: ::std::boxed::Box<::capnp::capability::DynClientHook>) -> Self {
                    Self { client: ::capnp::capability::FromClientHook::new(hook), #phantom_value }
                }
                fn into_client_hook(self) -> ::std::boxed::Box<::capnp::capability::DynClientHook> {
                    ::capnp::capability::FromClientHook::into_client_hook(self.client)
                }
                fn as_client_hook(&self) -> &::capnp::capability::DynClientHook {
                    &self.client
                }
            }
        }
    }

    /// The methods, as a client has them: a request to be filled in, and the short form.
    fn requests(&self) -> TokenStream {
        let Generics { list, bounds, .. } = &self.generics;
        let methods = &self.interface.methods;
        let taken = |name: &Ident| methods.iter().any(|method| method.request == *name);
        let functions = methods.iter().map(|method| {
            let request = request(method);
            let call = if taken(&method.ident) { quote!() } else { call(method) };
            quote!(#request #call)
        });
        quote! {
            impl #list Client #list #bounds {
                #(#functions)*
            }
        }
    }

    fn aliases(&self, method: &Method) -> TokenStream {
        let Method { params_alias, results_alias, params, .. } = method;
        let results = results(method);
        let (of_params, of_results) = (self.used_in(params), self.used_in(&results));
        let params_doc = format!(" The params of the method `{}`.", method.name);
        let results_doc = match method.results {
            Some(_) => format!(" The results of the method `{}`, to be filled in.", method.name),
            None => format!(" What the method `{}` may do with its call; it has no results.", method.name),
        };
        quote! {
            #[doc = #params_doc]
            pub type #params_alias<#(#of_params),*> = ::capnp_threads::Params<#params>;
            #[doc = #results_doc]
            pub type #results_alias<'a, #(#of_results),*> = ::capnp_threads::Results<'a, #results>;
        }
    }

    fn server(&self) -> TokenStream {
        let Generics { list, bounds, .. } = &self.generics;
        let Interface { name, comment, supertraits, methods, .. } = self.interface;
        let summary = format!(
            "What an object with the interface `{name}` implements. Methods that are not written answer \
             `unimplemented`."
        );
        let doc = documented(&summary, comment);
        let methods = methods.iter().map(|method| {
            let Method { ident, params_alias, results_alias, params, .. } = method;
            let (of_params, of_results) = (self.used_in(params), self.used_in(&results(method)));
            let doc = documented(&format!("The method `{}`.", method.name), &method.comment);
            let missing = format!("the method `{}` of `{name}` is not implemented", method.name);
            quote! {
                #doc
                fn #ident(
                    &self,
                    params: #params_alias<#(#of_params),*>,
                    results: #results_alias<'_, #(#of_results),*>,
                ) -> ::capnp_threads::Result<()> {
                    ::core::result::Result::Err(::capnp_threads::Error::unimplemented(#missing))
                }
            }
        });
        let message = format!("`{{Self}}` cannot serve the interface `{name}`");
        let note = "implement the trait `Server` of the interface's module for `{Self}`";
        quote! {
            #doc
            #[diagnostic::on_unimplemented(message = #message, note = #note)]
            pub trait Server #list: #(#supertraits +)* ::core::marker::Send + ::core::marker::Sync + 'static
            #bounds
            {
                #(#methods)*
            }
        }
    }

    fn dispatch(&self) -> TokenStream {
        let Generics { list, more, .. } = &self.generics;
        let bounds = &self.interface.bounds;
        let own = self.interface.methods.iter().map(|method| {
            let Method { ordinal, ident, .. } = method;
            let typed = if method.results.is_some() { quote!(typed()) } else { quote!(streaming()) };
            quote! {
                (_private::TYPE_ID, #ordinal) => {
                    let (params, results) = call.#typed;
                    <_S as Server #list>::#ident(server, params, results)
                }
            }
        });
        let inherited = self.interface.bases.iter().map(|Base { id, client }| {
            quote! {
                (#id, _) => <#client as ::capnp_threads::FromServer<_S>>::dispatch(server, call),
            }
        });
        quote! {
            impl<#more _S> ::capnp_threads::FromServer<_S> for Client #list
            where
                _S: Server #list,
                #(#bounds,)*
            {
                fn dispatch(server: &_S, call: &mut ::capnp_threads::Call) -> ::capnp_threads::Result<()> {
                    match (call.interface_id(), call.method_id()) {
                        #(#own)*
                        #(#inherited)*
                        _ => call.unimplemented(),
                    }
                }
            }
        }
    }

    fn upcast(&self, Base { client: base, .. }: &Base) -> TokenStream {
        let Generics { list, bounds, .. } = &self.generics;
        quote! {
            impl #list ::core::convert::From<Client #list> for #base #bounds {
                fn from(client: Client #list) -> Self {
                    <Self as ::core::convert::From<::capnp_threads::Client>>::from(client.client)
                }
            }
        }
    }

    /// Those of the interface's type parameters that a type mentions: an alias may have no others.
    fn used_in(&self, ty: &impl ToTokens) -> Vec<&Ident> {
        let tokens = ty.to_token_stream();
        self.interface.params.iter().filter(|param| mentions(tokens.clone(), param)).collect()
    }
}

/// A doc comment: a summary of ours, and the schema's comment as it stands there, which is no Markdown.
fn documented(summary: &str, comment: &str) -> TokenStream {
    let mut lines = vec![format!(" {summary}")];
    if !comment.is_empty() {
        // A fence that the comment does not contain.
        let fence = (3..).map(|n| "`".repeat(n)).find(|fence| !comment.contains(fence)).unwrap_or_default();
        lines.extend([String::new(), format!(" {fence}text")]);
        lines.extend(comment.lines().map(|line| format!(" {line}")));
        lines.push(format!(" {fence}"));
    }
    quote!(#(#[doc = #lines])*)
}

fn results(method: &Method) -> TokenStream {
    method.results.as_ref().map_or_else(|| quote!(()), ToTokens::to_token_stream)
}

/// What begins a call.
fn request(Method { name, comment, ordinal, request, params, results, .. }: &Method) -> TokenStream {
    let doc = documented(&format!("Begins a call of the method `{name}`."), comment);
    let (returned, cast) = match results {
        Some(results) => (quote!(::capnp_threads::Request<#params, #results>), quote!(cast())),
        None => (quote!(::capnp_threads::StreamingRequest<#params>), quote!(cast().into())),
    };
    quote! {
        #doc
        pub fn #request(&self) -> #returned {
            self.client.request(_private::TYPE_ID, #ordinal).#cast
        }
    }
}

/// The short form of a call.
fn call(method: &Method) -> TokenStream {
    let Method { name, ident, request, params, results, without_params, .. } = method;
    let with = if *without_params { "" } else { ", with params that `fill` fills in" };
    let summary = match results {
        Some(_) => format!("Calls the method `{name}`{with}."),
        None => format!("Sends a call of the method `{name}` within the stream's window{with}."),
    };
    let doc = documented(&summary, &method.comment);
    let filled = if *without_params { quote!() } else { quote!(<_F: ::capnp_threads::Filled>) };
    let fill = if *without_params {
        quote!()
    } else {
        quote!(fill: impl ::core::ops::FnOnce(<#params as ::capnp::traits::Owned>::Builder<'_>) -> _F,)
    };
    let (stream, returned) = match results {
        Some(results) => (quote!(), quote!(::capnp_threads::RemotePromise<#results>)),
        None => (quote!(stream: &::capnp_threads::Stream,), quote!(::capnp_threads::Result<()>)),
    };
    let send = match (results, without_params) {
        (Some(_), true) => quote!(send()),
        (Some(_), false) => quote!(send_with(fill)),
        (None, true) => quote!(send(stream)),
        (None, false) => quote!(send_with(stream, fill)),
    };
    quote! {
        #doc
        pub fn #ident #filled(&self, #stream #fill) -> #returned {
            self.#request().#send
        }
    }
}
