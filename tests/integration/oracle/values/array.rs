//! Arrays of any type.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{Form, Scalar};

/// An array of `scalar`'s values: any number of dimensions, nulls and lower bounds.
pub(crate) fn array(scalar: &Scalar, index: usize, random: &mut StdRng) -> String {
    let element = |random: &mut StdRng| {
        if random.random_range(0..6) == 0 {
            return "NULL".to_owned();
        }
        let edge = random.random_range(0..2 * scalar.edges.len().max(1));
        let value = scalar.value(edge, random);
        // Blanks around an element are no part of the JSON that it becomes, and a JSON null looks
        // there as a null of SQL does.
        let value = match scalar.form {
            Form::Json if value.trim() == "null" => "true",
            Form::Json => value.trim(),
            _ => &value,
        };
        // As small as the test wants its rows; JSON can't be cut.
        let most = if scalar.nests() { usize::MAX } else { 200 };
        let value: String = value.chars().take(most).collect();
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    };
    // Elements that are arrays themselves look like another dimension.
    let most = if scalar.nests() { 1 } else { 3 };
    let dimensions: Vec<usize> = match index {
        0 => Vec::new(),
        1 => vec![1],
        _ => (0..random.random_range(1..=most)).map(|_| random.random_range(1..4)).collect(),
    };
    if dimensions.is_empty() {
        return "{}".to_owned();
    }
    let mut bounds = String::new();
    if random.random_range(0..3) == 0 {
        for length in &dimensions {
            let low = random.random_range(-3..4);
            bounds
                .push_str(&format!("[{low}:{}]", low + i32::try_from(*length).expect("small") - 1));
        }
        bounds.push('=');
    }
    bounds + &braces(&dimensions, scalar.delimiter, &mut |random| element(random), random)
}

fn braces(
    dimensions: &[usize],
    delimiter: char,
    element: &mut impl FnMut(&mut StdRng) -> String,
    random: &mut StdRng,
) -> String {
    let Some((length, inner)) = dimensions.split_first() else { return element(random) };
    let parts: Vec<String> =
        (0..*length).map(|_| braces(inner, delimiter, element, random)).collect();
    format!("{{{}}}", parts.join(&delimiter.to_string()))
}
