"""How good are samples? Metrics of features, in float64, by numpy and scipy alone.

A feature extractor maps samples to vectors [N, F]. Every metric compares the features
of N real and M fake samples, and means nothing without the extractor, N and M, which is
why `result.Result` records them. Smaller is better for the two distances,

    Fréchet   |m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½)     biased by O(1/n)
    kernel    E k(x, x') + E k(y, y') - 2 E k(x, y)      unbiased

and bigger is better for precision and density (are fakes realistic?), recall and
coverage (is all of the data there?) and the inception score (sharp and varied classes).
`ranking` measures outlier scores, `modes` counts the components of a known mixture, and
`quality.sample_quality` computes all metrics of samples at once.

One theory a file. A Fréchet distance never needs all features at once: `frechet.merge`
adds `frechet.Moments`. Wrong shapes, types and values are one `BadInput` sentence each.
"""
