//! Curves over steps, as an SVG of one panel each.

use std::fmt::Write;

/// A curve.
pub(super) struct Series {
    /// What it shows.
    pub name: &'static str,
    /// (step, value), by step.
    pub points: Vec<(f64, f64)>,
}

/// Size of a panel, and of what stands left of and below its curve.
const PANEL: (f64, f64) = (420.0, 220.0);
const LEFT: f64 = 64.0;
const BELOW: f64 = 28.0;
const ABOVE: f64 = 26.0;
/// Most points of a curve; of more only every so many-th is drawn.
const POINTS: usize = 1500;

/// The panels, two a row. Values are drawn from 0 on, or from the least where one is below it.
pub(super) fn plot(series: &[Series]) -> String {
    let rows = series.len().div_ceil(2);
    let (width, height) = (2.0 * PANEL.0, rows as f64 * PANEL.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (i, series) in series.iter().enumerate() {
        let at = ((i % 2) as f64 * PANEL.0, (i / 2) as f64 * PANEL.1);
        panel(&mut svg, at, series);
    }
    svg += "</svg>\n";
    svg
}

fn panel(svg: &mut String, (x0, y0): (f64, f64), series: &Series) {
    let finite: Vec<(f64, f64)> =
        series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let over = |start: f64, pick: fn(&(f64, f64)) -> f64| finite.iter().map(pick).fold(start, f64::max);
    let steps = over(1.0, |p| p.0);
    let low = finite.iter().map(|p| p.1).fold(0.0, f64::min);
    let high = over(low, |p| p.1);
    let high = if high > low { high } else { low + 1.0 };
    let (w, h) = (PANEL.0 - LEFT - 16.0, PANEL.1 - ABOVE - BELOW);
    let place =
        |(x, y): (f64, f64)| (x0 + LEFT + x / steps * w, y0 + ABOVE + (1.0 - (y - low) / (high - low)) * h);
    let mut put = |text: String| {
        // a String takes whatever is written
        let _ = writeln!(svg, "{text}");
    };
    put(format!(
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}</text>",
        x0 + LEFT,
        y0 + ABOVE - 9.0,
        series.name
    ));
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (value, step) = (low + share * (high - low), share * steps);
        let (left, y) = place((0.0, value));
        put(format!(
            "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
            left + w
        ));
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            number(value)
        ));
        let (x, bottom) = place((step, low));
        put(format!(
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            number(step.round())
        ));
    }
    let every = finite.len().div_ceil(POINTS).max(1);
    let last = finite.len().saturating_sub(1);
    let drawn = finite.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last);
    let points: Vec<String> = drawn
        .map(|(_, &point)| {
            let (x, y) = place(point);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    put(format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.5\"/>",
        points.join(" ")
    ));
}

/// A number in few characters.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{value:.2e}"),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_lies_in_its_panel() {
        let points = (0..5000).map(|i| (f64::from(i), 3.0 / (1.0 + f64::from(i)))).collect();
        let silent = Series { name: "nothing", points: vec![(0.0, f64::NAN), (1.0, 0.0)] };
        let svg = plot(&[Series { name: "loss", points }, silent, Series { name: "empty", points: vec![] }]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<polyline").count(), 3);
        let curve = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a curve");
        let places: Vec<(f64, f64)> = curve
            .split(' ')
            .map(|p| {
                p.split_once(',')
                    .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
                    .expect("a pair")
            })
            .collect();
        assert!((1000..=POINTS + 1).contains(&places.len()), "{}", places.len());
        assert!(places.iter().all(|&(x, y)| (LEFT..PANEL.0).contains(&x) && (ABOVE..PANEL.1).contains(&y)));
        assert_eq!(places[0], (LEFT, ABOVE), "the first is the largest");
        assert!(places.windows(2).all(|p| p[1].0 >= p[0].0 && p[1].1 >= p[0].1), "it falls");
    }
}
