//! Functions that are inserted into an expression to charge its work. No source can spell their names.
//!
//! The interpreter has no hook for this. Operands that may be large are wrapped in [`READ`], which charges them and
//! returns them unchanged: the work of most functions and operators is bounded by their operands. The few that multiply
//! their operands are called through a function of ours that charges the result first.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelOptional, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, DeclarationError, ExecutionError, FunctionContext, Value as CelValue};

use super::budget::Budget;
use super::zones;

/// `@step(x, n)`: `x`, after charging an iteration over a body of `n` nodes.
pub(super) const STEP: &str = "@step";
/// `@read(x)`: `x`, after charging all of it.
pub(super) const READ: &str = "@read";
/// `@optional(x)`: `x`; an optional is charged, since a selection copies it.
pub(super) const OPTIONAL: &str = "@optional";
/// `@index(x)`: `x`, after charging it; a fraction is refused, because the interpreter's error would copy the list.
pub(super) const INDEX: &str = "@index";
/// `@keys(x)`: as [`READ`]; a map becomes the list of its keys, in the order of [`keys_in_order`].
pub(super) const KEYS: &str = "@keys";
/// `@container(x)`: `x`, after charging a search through it.
pub(super) const CONTAINER: &str = "@container";

/// The prefix of the name of a function that is called through ours.
pub(super) const METERED: &str = "@metered ";

/// The functions that cost more than their operands.
const FUNCTIONS: [&str; 11] = [
    "replace",
    "split",
    "join",
    "format",
    "indexOf",
    "lastIndexOf",
    "distinct",
    "sort",
    "@sortByAssociatedKeys",
    "lists.range",
    "matches",
];

/// The name of the charging variant of a function, if it needs one when it is called with so many arguments.
pub(super) fn metered(name: &str, n_args: usize) -> Option<String> {
    let is_ours = FUNCTIONS.contains(&name) || n_args == 1 && zones::takes_zone(name);
    is_ours.then(|| format!("{METERED}{name}"))
}

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Called<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Function = Box<
    dyn for<'b, 'v> Fn(&mut FunctionContext<'b, 'v>) -> Result<CowVal<'b, 'v>, ExecutionError> + Send + Sync,
>;

/// Registers the functions of these names, each charging `budget`.
pub(super) fn declare<'n>(
    context: &mut Context<'_, '_>,
    names: impl Iterator<Item = &'n str>,
    budget: &Arc<Budget>,
) -> Result<(), DeclarationError> {
    for name in names {
        let budget = Arc::clone(budget);
        let function: Function = match name.strip_prefix(METERED) {
            Some(inner) => {
                let inner = inner.to_owned();
                Box::new(move |called| call_metered(&inner, called, &budget))
            }
            None => {
                let pay = payment(name);
                Box::new(move |called| pay(std::mem::take(&mut called.args), &budget))
            }
        };
        context.add_function(name, function)?;
    }
    Ok(())
}

fn payment(name: &str) -> for<'b, 'v> fn(Args<'b, 'v>, &Budget) -> Called<'b, 'v> {
    match name {
        STEP => |args, budget| {
            let [value, nodes] = taken(args)?;
            budget.step(whole(&nodes).unwrap_or(usize::MAX))?;
            Ok(value)
        },
        OPTIONAL => |args, budget| {
            let [value] = taken(args)?;
            if value.downcast_ref::<CelOptional<'_>>().is_some() {
                budget.read(value.as_ref())?;
            }
            Ok(value)
        },
        INDEX => |args, budget| {
            let [value] = taken(args)?;
            if value.downcast_ref::<CelDouble>().is_some_and(|number| number.inner().fract() != 0.0) {
                return Err(ExecutionError::function_error("index", "an index must be a whole number"));
            }
            budget.read(value.as_ref())?;
            Ok(value)
        },
        KEYS => |args, budget| {
            let [value] = taken(args)?;
            budget.read(value.as_ref())?;
            Ok(match value.downcast_ref::<CelMap<'_>>() {
                Some(map) => CowVal::owned(CelList::from(keys_in_order(map))),
                None => value,
            })
        },
        CONTAINER => |args, budget| {
            let [value] = taken(args)?;
            // A key is found without looking at the others.
            if value.downcast_ref::<CelMap<'_>>().is_none() {
                budget.read(value.as_ref())?;
            }
            Ok(value)
        },
        _ => |args, budget| {
            let [value] = taken(args)?;
            budget.read(value.as_ref())?;
            Ok(value)
        },
    }
}

/// The keys of a map: numbers by their value, then `false` and `true`, then texts by their characters.
///
/// The interpreter's maps are hash maps. They iterate in another order each time, and do not know the order in which the
/// document wrote their keys.
fn keys_in_order<'v>(map: &CelMap<'v>) -> Vec<Box<dyn Val + 'v>> {
    let mut keys: Vec<_> = map.inner().keys().collect();
    keys.sort_unstable_by_key(|&key| match key {
        CelMapKey::Int(number) => (i128::from(*number.inner()), key),
        CelMapKey::UInt(number) => (i128::from(*number.inner()), key),
        CelMapKey::Bool(_) | CelMapKey::String(_) => (i128::MAX, key),
    });
    keys.into_iter().map(|key| key.inner().clone_as_boxed()).collect()
}

fn taken<'b, 'v, const N: usize>(args: Args<'b, 'v>) -> Result<[CowVal<'b, 'v>; N], ExecutionError> {
    args.try_into().map_err(|args: Args<'_, '_>| ExecutionError::invalid_argument_count(N, args.len()))
}

fn whole(value: &CowVal<'_, '_>) -> Option<usize> {
    usize::try_from(*value.downcast_ref::<CelInt>()?.inner()).ok()
}

fn text<'b>(args: &'b Args<'_, '_>, index: usize) -> &'b str {
    args.get(index).and_then(|value| value.downcast_ref::<CelString<'_>>()).map_or("", |text| text.inner())
}

/// Charges a call of `name`, then calls it.
fn call_metered<'b, 'v>(name: &str, called: &mut FunctionContext<'b, 'v>, budget: &Budget) -> Called<'b, 'v> {
    let args = std::mem::take(&mut called.args);
    let mut given = 0usize;
    for value in &args {
        given = given.saturating_add(budget.read(value.as_ref())?);
    }
    if name == "matches" {
        if let [text, pattern] = args.as_slice()
            && let Some(text) = text.downcast_ref::<CelString<'_>>()
            && let Some(pattern) = pattern.downcast_ref::<CelString<'_>>()
        {
            return budget.matches(text, pattern).map(|found| CowVal::owned(CelBool::from(found)));
        }
    } else {
        budget.pay(surplus(name, &args, given))?;
    }
    let args = if zones::takes_zone(name) { zones::on_the_clocks(args) } else { args };
    call(name, called.ptx, args)
}

/// The most that a call costs beyond what it is `given`.
fn surplus(name: &str, args: &Args<'_, '_>, given: usize) -> usize {
    let (first, second) = (text(args, 0), text(args, 1));
    let n_items =
        || args.first().and_then(|list| list.downcast_ref::<CelList<'_>>()).map_or(0, |list| list.len());
    let n_found = || if second.is_empty() { first.len() + 1 } else { first.matches(second).count() };
    match name {
        "replace" => first.len().saturating_add(n_found().saturating_mul(text(args, 2).len())),
        // Each part is a value of its own.
        "split" => first.len().saturating_add(n_found().saturating_mul(64)),
        "join" => given.saturating_add(n_items().saturating_mul(second.len())),
        // A number becomes at most some hundred characters, or as many as the precision says: at most a thousand.
        "format" => given.saturating_mul(10).saturating_add(first.matches("%.").count().saturating_mul(1400)),
        // The search is naive, over characters that were copied out.
        "indexOf" | "lastIndexOf" => {
            first.len().saturating_mul(4).saturating_add(first.len().saturating_mul(second.len() / 4))
        }
        // Each is compared with all before it.
        "distinct" => n_items().saturating_mul(given / 4),
        "lists.range" => args.first().and_then(whole).unwrap_or(0).saturating_mul(64),
        _ => given.saturating_mul(8),
    }
}

/// Calls the environment's own function: a member function, except for those with a dot in their names.
fn call<'b, 'v>(name: &str, context: &Context<'b, 'v>, args: Args<'b, 'v>) -> Called<'b, 'v> {
    let mut scope = context.new_inner_scope();
    let mut operands = Vec::with_capacity(args.len());
    for (index, value) in args.into_iter().enumerate() {
        let variable = format!("@{index}");
        scope.add_variable_as_val(variable.as_str(), value.into_owned());
        operands.push(IdedExpr { id: 0, expr: Expr::Ident(variable) });
    }
    let target = match name.split_once('.') {
        Some((space, _)) => Some(IdedExpr { id: 0, expr: Expr::Ident(space.to_owned()) }),
        None if operands.is_empty() => None,
        None => Some(operands.remove(0)),
    };
    let expr = Expr::Call(CallExpr {
        func_name: name.rsplit('.').next().unwrap_or(name).to_owned(),
        target: target.map(Box::new),
        args: operands,
    });
    let call = IdedExpr { id: 0, expr };
    let value = CelValue::resolve_val(&call, &scope)?.into_owned();
    Ok(CowVal::Owned(value))
}
