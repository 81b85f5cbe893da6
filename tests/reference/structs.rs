//! Which keys do the config structs have? Read from their source: names, types, what their documentation says.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

/// The structs and enums of the crates that have configs, by name.
pub(crate) struct Structs {
    structs: HashMap<String, syn::ItemStruct>,
    enums: HashMap<String, syn::ItemEnum>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// With dots, from the root of the config.
    pub(crate) path: String,
    /// `a size`, `a duration`, or the values that are possible.
    pub(crate) kind: String,
    /// The value that it has without being written, where its documentation says so.
    pub(crate) default: Option<String>,
    pub(crate) is_required: bool,
    pub(crate) meaning: String,
}

impl Structs {
    pub(crate) fn read() -> Self {
        let mut found = Self { structs: HashMap::new(), enums: HashMap::new() };
        for root in ["etl/src", "etl-config/src", "etl-destinations/src"] {
            found.read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(root));
        }
        found
    }

    fn read_folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read_folder(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
                for item in file.items {
                    match item {
                        Item::Struct(item) if derives(&item.attrs) => {
                            drop(self.structs.insert(item.ident.to_string(), item))
                        }
                        Item::Enum(item) if derives(&item.attrs) => {
                            drop(self.enums.insert(item.ident.to_string(), item))
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The keys of a struct below a path, those of its sections included.
    pub(crate) fn keys(&self, name: &str, path: &str) -> Vec<Key> {
        let item = self.structs.get(name).unwrap_or_else(|| panic!("there is no config struct {name}"));
        let Fields::Named(fields) = &item.fields else { panic!("{name} has no named fields") };
        let has_defaults = serde(&item.attrs).iter().any(|word| word == "default");
        let mut keys = Vec::new();
        for field in &fields.named {
            let words = serde(&field.attrs);
            if words.iter().any(|word| word == "skip") {
                continue;
            }
            let renamed = words.iter().find_map(|word| word.strip_prefix("rename="));
            let name = renamed.map_or_else(|| field.ident.as_ref().unwrap().to_string(), str::to_owned);
            let path = format!("{path}.{name}");
            let (inner, is_option) = without_option(&field.ty);
            let type_name = type_name(inner);
            if self.structs.get(&type_name).is_some_and(|item| matches!(item.fields, Fields::Named(_))) {
                keys.extend(self.keys(&type_name, &path));
                continue;
            }
            let has_default = has_defaults || is_option || words.iter().any(|word| word.starts_with("default"));
            let documentation = documentation(&field.attrs);
            let (meaning, default) = split_default(&documentation);
            let default = default.or_else(|| self.default_variant(&type_name));
            keys.push(Key { path, kind: self.kind(inner), default, is_required: !has_default, meaning });
        }
        keys
    }

    /// The variant that is marked as the default.
    fn default_variant(&self, name: &str) -> Option<String> {
        let item = self.enums.get(name)?;
        let variant =
            item.variants.iter().find(|variant| variant.attrs.iter().any(|a| a.path().is_ident("default")))?;
        Some(variant_name(&item.attrs, &variant.ident.to_string()))
    }

    fn kind(&self, kind: &Type) -> String {
        let name = type_name(kind);
        if let Some(item) = self.enums.get(&name) {
            let names = item.variants.iter().map(|variant| variant_name(&item.attrs, &variant.ident.to_string()));
            return names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        }
        match name.as_str() {
            "bool" => "`true`, `false`",
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
            "ByteSize" => "a size",
            "Duration" => "a duration",
            "PathBuf" => "a path",
            "String" => "a text",
            "Secret" => "a secret text",
            "char" => "a character",
            "SocketAddr" => "address and port",
            "Vec" => "a list of texts",
            "BTreeMap" => "names with names",
            "TablePatterns" => "a pattern, or a list",
            "Metadata" => "`on`, `off`, or names",
            other => panic!("the reference has no word for the type {other}"),
        }
        .to_owned()
    }
}

fn derives(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let mut found = false;
        if attribute.path().is_ident("derive") {
            let _complete = attribute.parse_nested_meta(|meta| {
                found |= meta.path.segments.last().is_some_and(|last| last.ident == "Deserialize");
                Ok(())
            });
        }
        found
    })
}

/// The words in `#[serde(...)]`; one with a value reads `name=value`.
fn serde(attributes: &[Attribute]) -> Vec<String> {
    let mut words = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let _complete = attribute.parse_nested_meta(|meta| {
            let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            let value = if meta.input.peek(syn::Token![=]) {
                format!("={}", meta.value()?.parse::<syn::LitStr>()?.value())
            } else {
                String::new()
            };
            words.push(name + &value);
            Ok(())
        });
    }
    words
}

fn variant_name(attributes: &[Attribute], name: &str) -> String {
    let words = serde(attributes);
    let style = words.iter().find_map(|word| word.strip_prefix("rename_all=")).unwrap_or_default();
    let separator = match style {
        "kebab-case" => "-",
        "snake_case" => "_",
        _ => "",
    };
    let mut written = String::new();
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            written.push_str(separator);
        }
        written.extend(letter.to_lowercase());
    }
    written
}

fn without_option(kind: &Type) -> (&Type, bool) {
    let Type::Path(path) = kind else { return (kind, false) };
    let Some(last) = path.path.segments.last() else { return (kind, false) };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return (kind, false) };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) if last.ident == "Option" => (inner, true),
        _ => (kind, false),
    }
}

fn type_name(kind: &Type) -> String {
    let Type::Path(path) = kind else { return String::new() };
    path.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn documentation(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ")
}

/// `... Default 16MiB.` gives the value; a sentence such as `Default: the user's name.` stays in the meaning.
fn split_default(documentation: &str) -> (String, Option<String>) {
    let Some((before, after)) = documentation.rsplit_once("Default ") else { return (documentation.to_owned(), None) };
    match after.strip_suffix('.').map(|value| value.trim_matches('`')) {
        Some(value) if !value.contains(' ') => (before.trim().to_owned(), Some(value.to_owned())),
        _ => (documentation.to_owned(), None),
    }
}
