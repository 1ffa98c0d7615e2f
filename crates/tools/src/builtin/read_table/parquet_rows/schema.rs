//! Columns within columns: how lists, maps and structs are put together from the leaves.
//!
//! Parquet stores only the leaves of a nested column. Two levels beside each value say where it belongs: the definition
//! level, how many of its optional and repeated parts exist, and the repetition level, which list goes on.

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Value, json};

use super::super::query::MAX_ROW_BYTES;
use super::Malformed;
use super::leaf::Leaf;

/// A column, or a part of one.
#[derive(Debug)]
pub(super) enum Node {
    /// The leaf of this number.
    Leaf(usize),
    /// Null below this definition level.
    Optional(i16, Box<Node>),
    /// Fields, none of which is absent.
    Struct(Vec<(String, Node)>),
    /// A list: empty below this definition level; its items have this repetition level, but the first.
    List { def: i16, rep: i16, item: Box<Node> },
    /// A list of keys with values.
    Map { def: i16, rep: i16, key: Box<Node>, value: Box<Node> },
}

/// How much of a row may still come.
pub(super) struct Room(u64);

impl Room {
    pub(super) const fn new() -> Self {
        Self(MAX_ROW_BYTES)
    }

    /// Takes the room of a value that is written in so many bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Malformed> {
        let left = self.0.checked_sub(bytes as u64 + 1);
        self.0 = left.ok_or(Malformed(format!("the row is larger than {MAX_ROW_BYTES} bytes")))?;
        Ok(())
    }

    pub(super) const fn used(&self) -> u64 {
        MAX_ROW_BYTES - self.0
    }
}

/// The columns of a schema with their names.
pub(super) fn columns_of(described: &SchemaDescriptor) -> Result<Vec<(String, Node)>, Malformed> {
    if described.num_columns() == 0 {
        return Err(Malformed::new("it has no columns"));
    }
    let mut builder = Builder { next_leaf: 0 };
    let fields = described.root_schema().get_fields().iter();
    Ok(fields.map(|field| (field.name().to_owned(), builder.node(field, 0, 0))).collect())
}

struct Builder {
    next_leaf: usize,
}

impl Builder {
    /// A part, within others with these levels.
    fn node(&mut self, part: &Type, def: i16, rep: i16) -> Node {
        let info = part.get_basic_info();
        let repetition = if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED };
        match repetition {
            Repetition::REQUIRED => self.content(part, def, rep),
            Repetition::OPTIONAL => Node::Optional(def + 1, Box::new(self.content(part, def + 1, rep))),
            Repetition::REPEATED => {
                let (def, rep) = (def + 1, rep + 1);
                Node::List { def, rep, item: Box::new(self.content(part, def, rep)) }
            }
        }
    }

    /// A part that exists.
    fn content(&mut self, part: &Type, def: i16, rep: i16) -> Node {
        if part.is_primitive() {
            self.next_leaf += 1;
            return Node::Leaf(self.next_leaf - 1);
        }
        let fields = part.get_fields();
        if let [items] = fields
            && items.get_basic_info().has_repetition()
            && items.get_basic_info().repetition() == Repetition::REPEATED
        {
            let (def, rep) = (def + 1, rep + 1);
            if is_annotated(part, &LogicalType::List, ConvertedType::LIST) {
                let item = match items_of_list(part, items) {
                    Some(item) => self.node(item, def, rep),
                    None => self.content(items, def, rep),
                };
                return Node::List { def, rep, item: Box::new(item) };
            }
            let is_map = is_annotated(part, &LogicalType::Map, ConvertedType::MAP)
                || part.get_basic_info().converted_type() == ConvertedType::MAP_KEY_VALUE;
            if is_map
                && !items.is_primitive()
                && let [key, value] = items.get_fields()
            {
                let (key, value) = (self.node(key, def, rep), self.node(value, def, rep));
                return Node::Map { def, rep, key: Box::new(key), value: Box::new(value) };
            }
        }
        Node::Struct(
            fields.iter().map(|field| (field.name().to_owned(), self.node(field, def, rep))).collect(),
        )
    }
}

fn is_annotated(part: &Type, logical: &LogicalType, converted: ConvertedType) -> bool {
    let info = part.get_basic_info();
    info.logical_type_ref() == Some(logical) || info.converted_type() == converted
}

/// The items of a list, which are one level below its repeated part; `None` where old writers have left that level out.
fn items_of_list<'t>(list: &Type, repeated: &'t Type) -> Option<&'t Type> {
    if repeated.is_primitive() {
        return None;
    }
    let is_old = repeated.name() == "array" || repeated.name() == format!("{}_tuple", list.name());
    match repeated.get_fields() {
        [item] if !is_old => Some(item),
        _ => None,
    }
}

impl Node {
    /// The numbers of its leaves.
    pub(super) fn leaves(&self) -> Vec<usize> {
        match self {
            Node::Leaf(leaf) => vec![*leaf],
            Node::Optional(_, inner) | Node::List { item: inner, .. } => inner.leaves(),
            Node::Struct(fields) => fields.iter().flat_map(|(_, field)| field.leaves()).collect(),
            Node::Map { key, value, .. } => [key.leaves(), value.leaves()].concat(),
        }
    }

    /// The first leaf: its levels are those of the whole.
    fn first<'l>(&self, leaves: &'l [Option<Leaf>]) -> Result<&'l Leaf, Malformed> {
        let first = match self {
            Node::Leaf(leaf) => leaves.get(*leaf).and_then(Option::as_ref),
            Node::Optional(_, inner) | Node::List { item: inner, .. } | Node::Map { key: inner, .. } => {
                return inner.first(leaves);
            }
            Node::Struct(fields) => match fields.first() {
                Some((_, field)) => return field.first(leaves),
                None => None,
            },
        };
        first.ok_or(Malformed::new("a column has no content"))
    }

    /// Its value in this row.
    pub(super) fn read(&self, leaves: &mut [Option<Leaf>], room: &mut Room) -> Result<Value, Malformed> {
        room.take(1)?;
        match self {
            Node::Leaf(leaf) => match leaves.get_mut(*leaf).and_then(Option::as_mut) {
                Some(leaf) => leaf.take_value(room),
                None => Err(Malformed::new("a column has no content")),
            },
            Node::Optional(def, inner) => {
                if self.first(leaves)?.def()? >= *def {
                    inner.read(leaves, room)
                } else {
                    self.pass(leaves).map(|()| Value::Null)
                }
            }
            Node::Struct(fields) => {
                let mut object = Map::new();
                for (name, field) in fields {
                    room.take(name.len())?;
                    object.insert(name.clone(), field.read(leaves, room)?);
                }
                Ok(Value::Object(object))
            }
            Node::List { def, rep, item } => {
                let mut items = Vec::new();
                self.each(*def, *rep, leaves, |leaves| {
                    items.push(item.read(leaves, room)?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            Node::Map { def, rep, key, value } => {
                let mut entries = Vec::new();
                self.each(*def, *rep, leaves, |leaves| {
                    entries.push((key.read(leaves, room)?, value.read(leaves, room)?));
                    Ok(())
                })?;
                Ok(map_of(entries))
            }
        }
    }

    /// Reads the items of a list.
    fn each(
        &self,
        def: i16,
        rep: i16,
        leaves: &mut [Option<Leaf>],
        mut read: impl FnMut(&mut [Option<Leaf>]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.first(leaves)?.def()? < def {
            return self.pass(leaves);
        }
        loop {
            read(leaves)?;
            if self.first(leaves)?.rep().is_none_or(|next| next < rep) {
                return Ok(());
            }
        }
    }

    /// Goes past a value that does not exist.
    fn pass(&self, leaves: &mut [Option<Leaf>]) -> Result<(), Malformed> {
        self.leaves().into_iter().try_for_each(|leaf| match leaves.get_mut(leaf).and_then(Option::as_mut) {
            Some(leaf) => leaf.pass(),
            None => Ok(()),
        })
    }
}

/// An object if every key is a string, else a list of keys with values.
fn map_of(entries: Vec<(Value, Value)>) -> Value {
    if entries.iter().all(|(key, _)| key.is_string()) {
        let named =
            entries.into_iter().map(|(key, value)| (key.as_str().unwrap_or_default().to_owned(), value));
        return Value::Object(named.collect());
    }
    entries.into_iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}
