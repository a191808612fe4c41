//! Names that the stock generator does not know to be keywords.
//!
//! It puts an underscore behind the names of modules and methods that are keywords of Rust, but its list ends with
//! the edition of 2015. It writes none of the later keywords for what they mean, so here each is a name. And it
//! makes `Self` of an enumerant, or a variant of a union, that is called `self`. Where it writes `Self` for what
//! that means, it stands in other places.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// The keywords since the edition of 2018.
const LATER: &[&str] = &["async", "await", "dyn", "gen", "try"];

/// Puts an underscore behind these names too.
pub(super) fn escape(tokens: TokenStream) -> TokenStream {
    escape_in(tokens, false)
}

/// `imports`: whether the tokens are names of variants, to be imported.
fn escape_in(tokens: TokenStream, imports: bool) -> TokenStream {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let escaped = tokens.iter().enumerate().map(|(at, token)| match token {
        TokenTree::Ident(name) if LATER.iter().any(|later| name == later) => underscored(name),
        TokenTree::Ident(name) if name == "Self" && (imports || is_variant(&tokens, at)) => underscored(name),
        TokenTree::Group(group) => {
            let imports = group.delimiter() == Delimiter::Brace && follows_path(&tokens, at);
            let mut escaped = Group::new(group.delimiter(), escape_in(group.stream(), imports));
            escaped.set_span(group.span());
            TokenTree::Group(escaped)
        }
        other => other.clone(),
    });
    escaped.collect()
}

fn underscored(name: &Ident) -> TokenTree {
    TokenTree::Ident(Ident::new(&format!("{name}_"), name.span()))
}

/// Whether the name there is that of a variant: `path::Self`, `Self(…)`, `Self = 1`.
fn is_variant(tokens: &[TokenTree], at: usize) -> bool {
    let next = match tokens.get(at + 1) {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        Some(TokenTree::Punct(punct)) => punct.as_char() == '=',
        _ => false,
    };
    next || follows_path(tokens, at)
}

/// Whether `::` stands before it.
fn follows_path(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    at >= 2 && tokens[at - 2..at].iter().all(colon)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_escaped(from: &str, to: &str) {
        let (from, to): (TokenStream, TokenStream) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(escape(from).to_string(), to.to_string());
    }

    #[test]
    fn later_keywords_are_escaped_everywhere() {
        assert_escaped(
            "mod try { fn async(async_: dyn) { a::<T>::await(\"try\") } }",
            "mod try_ { fn async_(async_: dyn_) { a::<T>::await_(\"try\") } }",
        );
    }

    #[test]
    fn variants_called_self_are_told_from_the_type() {
        assert_escaped(
            "pub use self::Which::{A, Self}; enum Which { A(()), Self(()) } enum E { A = 0, Self = 1 }",
            "pub use self::Which::{A, Self_}; enum Which { A(()), Self_(()) } enum E { A = 0, Self_ = 1 }",
        );
        assert_escaped(
            "fn f(of: Self) -> Result<Self, ()> { match of { 0 => Ok(Self::Self), _ => Ok(Self { of }) } }",
            "fn f(of: Self) -> Result<Self, ()> { match of { 0 => Ok(Self::Self_), _ => Ok(Self { of }) } }",
        );
    }
}
