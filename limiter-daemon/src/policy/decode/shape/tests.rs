//! What a struct tells of itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Type, shape};
use crate::policy::decode::{At, Code, Ignored, NumberOrText, Unheeded, Unsupported};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its shape is looked at")]
struct Tree {
    name: At<String>,
    max_size: Option<At<u8>>,
    children: Option<Vec<At<Self>>>,
    kind: At<Kind>,
    labels: BTreeMap<String, Option<bool>>,
    #[serde(alias = "Le_af", alias = "old_leaf")]
    leaf: Option<Box<Leaf>>,
    ports: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its shape is looked at")]
struct Leaf {
    tree: Box<Option<Tree>>,
    size: NumberOrText,
    code: Option<Code>,
    later: Option<Unsupported>,
    no: Option<Unheeded>,
    what: Option<Ignored>,
    ratio: f64,
}

#[derive(Debug, Deserialize)]
enum Kind {
    Oak,
    Elm,
}

#[test]
fn a_struct_tells_its_fields() {
    let again = || Type::Again(String::new());
    let expected = [
        ("name", Type::Text, true),
        ("maxSize", Type::Whole(0, 255), false),
        ("children", Type::List, false),
        ("children[]", again(), false),
        ("kind", Type::OneOf(&["Oak", "Elm"]), true),
        ("labels", Type::Map, true),
        ("labels.*", Type::Boolean, false),
        ("leaf", Type::Mapping, false),
        ("leaf.tree", again(), false),
        ("leaf.size", Type::NumberOrText, true),
        ("leaf.code", Type::Code, false),
        ("leaf.later", Type::Unsupported, false),
        ("leaf.no", Type::Unheeded, false),
        ("leaf.what", Type::Ignored, false),
        ("leaf.ratio", Type::Number, true),
        ("ports", Type::List, true),
        ("ports[]", Type::Whole(0, 65535), false),
    ];
    let all = shape::<Tree>();
    let found: Vec<_> = all
        .iter()
        .map(|field| (field.path.as_str(), field.holds.clone(), field.required))
        .collect();
    assert_eq!(found, expected);
    let leaf = all.iter().find(|field| field.path == "leaf");
    assert_eq!(
        leaf.map(|leaf| &leaf.also[..]),
        Some(&["Le_af".to_owned(), "old_leaf".to_owned()][..])
    );
}
