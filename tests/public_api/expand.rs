//! A small `macro_rules!`, enough for the macros that define public items: the parser of the source does not expand any.

use std::collections::HashMap;

use proc_macro2::{Group, TokenStream, TokenTree};

/// What a variable of a macro stands for.
#[derive(Clone)]
enum Bound {
    Tokens(Vec<TokenTree>),
    /// In a repetition: for each round.
    Each(Vec<Bound>),
}

type Bindings = HashMap<String, Bound>;

/// What a use of the macro with these rules expands to. `None` if no rule matches.
pub fn expand(rules: TokenStream, input: TokenStream) -> Option<TokenStream> {
    let rules: Vec<_> = rules.into_iter().collect();
    let input: Vec<_> = input.into_iter().collect();
    let mut groups = rules.into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(tokens_of(&group)),
        _ => None,
    });
    while let (Some(pattern), Some(template)) = (groups.next(), groups.next()) {
        let mut bindings = Bindings::new();
        if fit(&pattern, &input, &mut bindings) == Some(input.len()) {
            return Some(transcribe(&template, &bindings).into_iter().collect());
        }
    }
    None
}

fn tokens_of(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// A repetition that begins at a `$`: what is repeated, the separator, and how many tokens it takes.
fn repetition(tokens: &[TokenTree]) -> Option<(Vec<TokenTree>, Option<TokenTree>, usize)> {
    let (true, Some(TokenTree::Group(group))) = (is_punct(tokens.first(), '$'), tokens.get(1)) else {
        return None;
    };
    let is_operator = |at: usize| ['*', '+', '?'].iter().any(|c| is_punct(tokens.get(at), *c));
    match is_operator(2) {
        true => Some((tokens_of(group), None, 3)),
        false => Some((tokens_of(group), tokens.get(2).cloned(), 4)),
    }
}

/// How many tokens of `input` the pattern fits.
fn fit(pattern: &[TokenTree], input: &[TokenTree], bindings: &mut Bindings) -> Option<usize> {
    let (mut at, mut rest) = (0, pattern);
    while !rest.is_empty() {
        if let Some((inner, separator, taken)) = repetition(rest) {
            let mut rounds = Vec::new();
            loop {
                let mut round = Bindings::new();
                let from = at + usize::from(separator.is_some() && !rounds.is_empty());
                match input.get(from..).and_then(|input| fit(&inner, input, &mut round)) {
                    Some(length) if length > 0 => at = from + length,
                    _ => break,
                }
                rounds.push(round);
            }
            for name in variables(&inner) {
                let each = rounds.iter().map(|round| round[&name].clone()).collect();
                bindings.insert(name, Bound::Each(each));
            }
            rest = &rest[taken..];
        } else if let (true, Some(TokenTree::Ident(name)), Some(TokenTree::Ident(kind))) =
            (is_punct(rest.first(), '$'), rest.get(1), rest.get(3))
        {
            let ends = |token: &TokenTree| is_punct(Some(token), ',') || is_punct(Some(token), ';');
            let left = input.get(at..).unwrap_or_default();
            let length = match (kind.to_string().as_str(), left.first()?) {
                ("ident", TokenTree::Ident(_)) | ("tt" | "literal", _) => 1,
                ("ident", _) => return None,
                _ => left.iter().position(ends).unwrap_or(left.len()),
            };
            bindings.insert(name.to_string(), Bound::Tokens(left[..length].to_vec()));
            at += length;
            rest = &rest[4..];
        } else {
            match (&rest[0], input.get(at)?) {
                (TokenTree::Group(a), TokenTree::Group(b)) if a.delimiter() == b.delimiter() => {
                    let inner = tokens_of(b);
                    if fit(&tokens_of(a), &inner, bindings)? != inner.len() {
                        return None;
                    }
                }
                (TokenTree::Group(_), _) | (_, TokenTree::Group(_)) => return None,
                (a, b) if a.to_string() == b.to_string() => {}
                _ => return None,
            }
            (at, rest) = (at + 1, &rest[1..]);
        }
    }
    Some(at)
}

/// The variables in a part of a pattern or template.
fn variables(tokens: &[TokenTree]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match (token, i > 0 && is_punct(tokens.get(i - 1), '$')) {
            (TokenTree::Ident(name), true) => found.push(name.to_string()),
            (TokenTree::Group(group), _) => found.extend(variables(&tokens_of(group))),
            _ => {}
        }
    }
    found
}

fn transcribe(template: &[TokenTree], bindings: &Bindings) -> Vec<TokenTree> {
    let (mut made, mut at) = (Vec::new(), 0);
    while at < template.len() {
        if let Some((inner, separator, taken)) = repetition(&template[at..]) {
            let names = variables(&inner);
            let rounds = names.iter().find_map(|name| match bindings.get(name) {
                Some(Bound::Each(each)) => Some(each.len()),
                _ => None,
            });
            for round in 0..rounds.unwrap_or(0) {
                let mut of_round = bindings.clone();
                for name in &names {
                    if let Some(Bound::Each(each)) = bindings.get(name) {
                        of_round.insert(name.clone(), each[round].clone());
                    }
                }
                made.extend(separator.clone().filter(|_| round > 0));
                made.extend(transcribe(&inner, &of_round));
            }
            at += taken;
            continue;
        }
        if let (true, Some(TokenTree::Ident(name))) = (is_punct(template.get(at), '$'), template.get(at + 1))
        {
            if let Some(Bound::Tokens(tokens)) = bindings.get(&name.to_string()) {
                made.extend(tokens.iter().cloned());
                at += 2;
                continue;
            }
        }
        made.push(match &template[at] {
            TokenTree::Group(group) => {
                let inner = transcribe(&tokens_of(group), bindings).into_iter().collect();
                TokenTree::Group(Group::new(group.delimiter(), inner))
            }
            token => token.clone(),
        });
        at += 1;
    }
    made
}
