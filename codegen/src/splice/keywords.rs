//! Names that the stock generator does not know to be keywords.
//!
//! It puts an underscore behind the names of modules and methods that are keywords of Rust, but its list ends with
//! the edition of 2015. It writes none of the later keywords for what they mean, so here each is a name.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};

/// The keywords since the edition of 2018.
const LATER: &[&str] = &["async", "await", "dyn", "try"];

/// Puts an underscore behind these names too.
pub(super) fn escape(tokens: TokenStream) -> TokenStream {
    tokens.into_iter().map(escape_one).collect()
}

fn escape_one(token: TokenTree) -> TokenTree {
    match token {
        TokenTree::Ident(name) if LATER.iter().any(|later| name == later) => {
            TokenTree::Ident(Ident::new(&format!("{name}_"), name.span()))
        }
        TokenTree::Group(group) => {
            let mut escaped = Group::new(group.delimiter(), escape(group.stream()));
            escaped.set_span(group.span());
            TokenTree::Group(escaped)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_keywords_are_escaped_everywhere() {
        let tokens: TokenStream =
            "mod try { fn async(async_: dyn) { a::<T>::await(\"try\") } }".parse().unwrap();
        let wanted: TokenStream =
            "mod try_ { fn async_(async_: dyn_) { a::<T>::await_(\"try\") } }".parse().unwrap();
        assert_eq!(escape(tokens).to_string(), wanted.to_string());
    }
}
