//! Buckets of relative positions: HF `T5Attention._relative_position_bucket`, bidirectional, as a table of integers.
//!
//! Near positions have a bucket each, far ones share buckets of logarithmic width. Which far bucket a distance falls into
//! is decided in float32 by the models' own training code, so its roundings are part of the definition.

use super::config::T5Config;

/// The bucket of a key `relative` positions behind its query (negative: before it).
pub(crate) fn bucket(relative: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let direction = if relative > 0 { half } else { 0 };
    let exact = half / 2;
    let distance = usize::try_from(relative.unsigned_abs()).unwrap_or(usize::MAX);
    if distance < exact {
        return direction + distance;
    }
    // torch: log(distance.float() / exact) is f32; the Python number log(max_distance / exact) is rounded to f32 before
    // the division
    let fraction = (distance as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
    let beyond = (fraction * (half - exact) as f32) as usize; // truncation, as `.to(torch.long)`
    direction + (exact + beyond).min(half - 1)
}

/// What every head adds to the score of every pair: `[heads, steps, steps]` from a table `[buckets, heads]`.
pub(crate) fn position_bias(config: &T5Config, table: &[f32], steps: usize) -> Vec<f32> {
    let heads = config.num_heads;
    let distance = |key: usize, query: usize| {
        i64::try_from(key).expect("a position") - i64::try_from(query).expect("a position")
    };
    // by `key + steps - 1 - query`
    let found: Vec<usize> =
        (0..2 * steps).map(|at| config.position_bucket(distance(at + 1, steps))).collect();
    let mut bias = Vec::with_capacity(heads * steps * steps);
    for head in 0..heads {
        for query in 0..steps {
            let row = &found[steps - 1 - query..][..steps];
            bias.extend(row.iter().map(|&bucket| table[bucket * heads + head]));
        }
    }
    bias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_positions_have_buckets_of_their_own() {
        // 32 buckets: 16 a direction, 8 of them exact
        for distance in 0..8_usize {
            let relative = i64::try_from(distance).expect("small");
            assert_eq!(bucket(-relative, 32, 128), distance);
            assert_eq!(bucket(relative, 32, 128), if distance == 0 { 0 } else { 16 + distance });
        }
        // 8 * 2^(k / 2): two buckets a doubling, up to 128
        assert_eq!(
            [8, 11, 12, 15, 16, 127, 128, 1 << 40].map(|d| bucket(-d, 32, 128)),
            [8, 8, 9, 9, 10, 15, 15, 15]
        );
    }

    #[test]
    fn the_bias_of_a_pair_is_that_of_its_distance() {
        let config = T5Config {
            num_heads: 3,
            relative_attention_num_buckets: 8,
            relative_attention_max_distance: 20,
            ..T5Config::default()
        };
        let table: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let steps = 5;
        let bias = position_bias(&config, &table, steps);
        assert_eq!(bias.len(), 75);
        for head in 0..3 {
            for query in 0..steps {
                for key in 0..steps {
                    let relative = i64::try_from(key).expect("small") - i64::try_from(query).expect("small");
                    let want = table[bucket(relative, 8, 20) * 3 + head];
                    assert_eq!(bias[(head * steps + query) * steps + key], want, "{head} {query} {key}");
                }
            }
        }
    }
}
