"""Names of the features in order, their exponents, and the constants of their definitions."""

EPSILON_FLATNESS = 1e-8
PEAK = 1.0 - 1e-3
BAND_EDGES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # cycles/pixel; 1.0 lies beyond every bin
ROLLOFF_SHARE = 0.85
DEAD_BAND = 1e-4

# name: exponent, in the order of the tables of features.md.
SPATIAL = {
    "spatial_mean": 1,
    "spatial_variance": 2,
    "spatial_std": 1,
    "spatial_skewness": 0,
    "spatial_kurtosis": 0,
    "spatial_min": 1,
    "spatial_max": 1,
    "spatial_range": 1,
    "spatial_iqr": 1,
    "spatial_mad": 1,
    "gradient_magnitude_mean": 1,
    "gradient_magnitude_std": 1,
    "gradient_magnitude_max": 1,
    "gradient_x_mean": 1,
    "gradient_y_mean": 1,
    "gradient_anisotropy": 0,
    "laplacian_mean": 1,
    "laplacian_std": 1,
    "laplacian_energy": 2,
}
SPECTRAL = {
    "fft_power_scale_0_mean": 2,
    "fft_power_scale_0_max": 2,
    "fft_power_scale_0_std": 2,
    "fft_power_scale_1_mean": 2,
    "fft_power_scale_1_max": 2,
    "fft_power_scale_1_std": 2,
    "fft_power_scale_2_mean": 2,
    "fft_power_scale_2_max": 2,
    "fft_power_scale_2_std": 2,
    "fft_power_scale_3_mean": 2,
    "fft_power_scale_3_max": 2,
    "fft_power_scale_3_std": 2,
    "fft_power_scale_4_mean": 2,
    "fft_power_scale_4_max": 2,
    "fft_power_scale_4_std": 2,
    "dominant_freq_x": 0,
    "dominant_freq_y": 0,
    "dominant_freq_magnitude": 1,
    "spectral_centroid_x": 0,
    "spectral_centroid_y": 0,
    "spectral_bandwidth": 0,
    "low_freq_ratio": 0,
    "mid_freq_ratio": 0,
    "high_freq_ratio": 0,
    "spectral_flatness": 0,
    "spectral_rolloff": 0,
    "spectral_anisotropy": 0,
}
# name: (exponent, fewest timesteps)
TEMPORAL = {
    "energy_growth_rate": (0, 2),
    "energy_growth_accel": (0, 3),
    "variance_growth_rate": (0, 2),
    "temporal_freq_dominant": (0, 4),
    "oscillation_amplitude": (1, 4),
    "oscillation_period": (0, 4),
    "autocorr_decay_time": (0, 4),
    "lyapunov_approx": (0, 3),
    "trajectory_smoothness": (0, 3),
    "regime_switches": (0, 3),
    "final_to_initial_ratio": (0, 2),
    "trend_strength": (0, 3),
    "detrended_variance": (2, 3),
}
PER_TIMESTEP = (*SPATIAL, *SPECTRAL)
PER_TRAJECTORY = tuple(TEMPORAL)
AGGREGATED = tuple(
    f"{name}_{statistic}" for statistic in ("mean", "std", "cv") for name in PER_TRAJECTORY
)
COLUMNS = {
    "per_timestep": PER_TIMESTEP,
    "per_trajectory": PER_TRAJECTORY,
    "aggregated": AGGREGATED,
}
EXPONENT = SPATIAL | SPECTRAL | {name: row[0] for name, row in TEMPORAL.items()}
SHIFTED_BY_A_CONSTANT = ("spatial_mean", "spatial_min", "spatial_max")
