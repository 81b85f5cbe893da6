//! Where do the readers of a copy find a value of any type, and what do both sides write of it?

use harness::every_type::Table;
use serde_json::{Value, json};

/// How one part of a value is asked for at the source and in the copy.
pub(crate) struct Part {
    pub(crate) source: String,
    /// SQL of DuckDB.
    pub(crate) copy: String,
    /// Where pyarrow finds it: names of fields, 0 for the first of a list, null for how many there are.
    pub(crate) way: Vec<Value>,
    /// The bits of a float, whose two texts differ.
    float: Option<u8>,
}

/// Where a value stands, on both sides.
#[derive(Clone)]
struct Place {
    pg: String,
    duck: String,
    way: Vec<Value>,
}

impl Place {
    fn column(name: &str) -> Self {
        Self { pg: name.to_owned(), duck: name.to_owned(), way: vec![json!(name)] }
    }

    fn then(&self, pg: String, duck: String, step: Value) -> Self {
        Self { pg, duck, way: self.way.iter().cloned().chain([step]).collect() }
    }

    /// A field, by its name as SQL takes it.
    fn field(&self, name: &str) -> Self {
        self.end(&format!("({}).{name}", self.pg), name)
    }

    /// A field of the copy, which the source computes.
    fn end(&self, pg: &str, name: &str) -> Self {
        let plain = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let plain = plain.map_or(name.to_owned(), |name| name.replace("\"\"", "\""));
        self.then(pg.to_owned(), format!("{}.{name}", self.duck), json!(plain))
    }

    /// The first of a list.
    fn first(&self, pg: String) -> Self {
        self.then(pg, format!("{}[1]", self.duck), json!(0))
    }

    fn one(&self, source: String, copy: String) -> Vec<Part> {
        vec![Part { source, copy, way: self.way.clone(), float: None }]
    }

    fn count(&self, source: String, copy: String) -> Vec<Part> {
        self.then(String::new(), String::new(), Value::Null).one(source, copy)
    }
}

/// The columns of a table with the parts of the values that are in them.
pub(crate) fn parts_of(table: &Table) -> Vec<(&'static str, Part)> {
    let (array, composite) = (|name| Place::column(name).first(format!("{name}[1]")), Place::column("c"));
    let within = composite.field("\"Y y\"");
    let places = [
        ("v", Place::column("v")),
        ("d", Place::column("d")),
        ("a", array("a")),
        ("da", array("da")),
        ("c", composite.field("x")),
        ("c", within.first(format!("({})[1]", within.pg))),
        ("ca", array("ca").field("x")),
    ];
    places.iter().flat_map(|(column, at)| parts(table.of, at).into_iter().map(move |part| (*column, part))).collect()
}

fn micros(x: &str) -> String {
    format!("(extract(epoch FROM {x}) * 1000000)::numeric(30, 0)::text")
}

/// What makes up a value of a type. Text is what both write alike.
fn parts(of: &str, at: &Place) -> Vec<Part> {
    let Place { pg, duck, .. } = at;
    let one = |source: String, copy: String| at.one(source, copy);
    // A cast would cut the padding of a `char`.
    let written = format!("CASE WHEN {pg} IS DISTINCT FROM NULL THEN format('%s', {pg}) END");
    let same = || one(written.clone(), format!("CAST({duck} AS VARCHAR)"));
    let within = |fields: &[(&str, &str)]| -> Vec<Part> {
        fields.iter().flat_map(|(field, of)| parts(of, &at.field(field))).collect()
    };
    let float = |bits: u8| same().into_iter().map(|part| Part { float: Some(bits), ..part }).collect();
    match of.split('(').next().unwrap_or_default() {
        "float4" => float(32),
        "float8" => float(64),
        "bool" => one(format!("({pg})::text"), format!("CAST({duck} AS VARCHAR)")),
        "bytea" => one(format!("upper(encode({pg}, 'hex'))"), format!("hex({duck})")),
        "date" => one(
            format!("CASE WHEN isfinite({pg}) THEN ({pg} - date '2000-01-01')::text ELSE {pg}::text END"),
            format!(
                "CASE WHEN isfinite({duck}) THEN CAST(datediff('day', DATE '2000-01-01', {duck}) AS VARCHAR) ELSE CAST({duck} AS VARCHAR) END"
            ),
        ),
        "timestamp" | "timestamptz" => one(
            format!("CASE WHEN isfinite({pg}) THEN {} ELSE {pg}::text END", micros(pg)),
            format!(
                "CASE WHEN isfinite({duck}) THEN CAST(epoch_us({duck}) AS VARCHAR) ELSE CAST({duck} AS VARCHAR) END"
            ),
        ),
        "time" => one(micros(pg), format!("CAST(epoch_us({duck}) AS VARCHAR)")),
        "interval" => {
            let pg = |part: &str| format!("extract({part} FROM {pg})");
            // In some copies it is text.
            let duck = |part: &str| format!("datepart('{part}', CAST({duck} AS INTERVAL))");
            let clock = |part: &dyn Fn(&str) -> String| {
                format!("{} * 3600000000 + {} * 60000000 + {}", part("hour"), part("minute"), part("microsecond"))
            };
            let months = |part: &dyn Fn(&str) -> String| format!("{} * 12 + {}", part("year"), part("month"));
            let parts = [
                (months(&pg), months(&duck), "months"),
                (pg("day"), duck("day"), "days"),
                (clock(&pg), clock(&duck), "microseconds"),
            ];
            let part = |(source, copy, name)| {
                let (source, copy) = (format!("({source})::numeric(30, 0)::text"), format!("CAST({copy} AS VARCHAR)"));
                at.then(String::new(), String::new(), json!(name)).one(source, copy)
            };
            parts.into_iter().flat_map(part).collect()
        }
        "pair" | "pair_domain" => within(&[("a", "int4"), ("\"B \"\"q\"\"\"", "text")]),
        "dropped" => within(&[("a", "int4"), ("c", "date")]),
        "nested" => within(&[("p", "pair"), ("r", "int4range"), ("m", "mood"), ("\"Time\"", "time")]),
        "hstore" => {
            at.count(format!("cardinality(akeys({pg}))::text"), format!("CAST(cardinality({duck}) AS VARCHAR)"))
        }
        "vector" | "halfvec" => parts("float4", &at.first(format!("(({pg})::real[])[1]"))),
        // Whoever has these types has other readers for them.
        "geometry" | "geography" => Vec::new(),
        name => match (range_of(name), name.strip_suffix("multirange")) {
            (Some(bound), _) => {
                let ends = ["lower", "upper"];
                let ends = ends.iter().map(|end| at.end(&format!("{end}({pg})"), &format!("\"{end}\"")));
                let flags =
                    [("lower_inc", "lower_inclusive"), ("upper_inc", "upper_inclusive"), ("isempty", "\"empty\"")];
                let flags = flags.iter().map(|(source, copy)| at.end(&format!("{source}({pg})"), copy));
                let flags =
                    flags.flat_map(|at| at.one(format!("({})::text", at.pg), format!("CAST({} AS VARCHAR)", at.duck)));
                ends.flat_map(|end| parts(bound, &end)).chain(flags).collect()
            }
            (None, Some(ranges)) => {
                let first = format!("(SELECT r FROM unnest({pg}) WITH ORDINALITY u(r, n) WHERE n = 1)");
                let count = format!("CASE WHEN {pg} IS NOT NULL THEN (SELECT count(*) FROM unnest({pg}))::text END");
                let mut found = parts(&format!("{ranges}range"), &at.first(first));
                found.extend(at.count(count, format!("CAST(len({duck}) AS VARCHAR)")));
                found
            }
            (None, None) => same(),
        },
    }
}

fn range_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "int4range" => "int4",
        "int8range" => "int8",
        "numrange" => "numeric",
        "daterange" => "date",
        "tsrange" => "timestamp",
        "tstzrange" => "timestamptz",
        "textrange" | "range_domain" => "text",
        "floatrange" => "float8",
        "inetrange" => "inet",
        "pairrange" => "pair",
        _ => return None,
    })
}

/// Whether both are one value; -0 is 0 where the copy has no other.
pub(crate) fn is_same(source: Option<&str>, copy: Option<&str>, part: &Part, has_signed_zero: bool) -> bool {
    let (Some(source), Some(copy), Some(bits)) = (source, copy, part.float) else { return source == copy };
    let number = |text: &str| {
        let wide = text.parse::<f64>().ok()?;
        Some(if bits == 32 { f64::from(wide as f32) } else { wide })
    };
    match (number(source), number(copy)) {
        (Some(source), Some(copy)) if source.is_nan() => copy.is_nan(),
        (Some(source), Some(copy)) if has_signed_zero => source.to_bits() == copy.to_bits(),
        (Some(source), Some(copy)) => source == copy,
        _ => false,
    }
}
