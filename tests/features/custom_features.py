"""User-defined features, which configurations of tests name by import path."""

from spinlock.features import custom_feature


@custom_feature(formula="⟨|u|⟩", unit="u", range="[0, ∞)", exponent=1)
def mean_modulus(fields):
    return fields.abs().mean((-2, -1))


@custom_feature(formula="u[0, 0]", unit="u", range="ℝ", exponent=1)
def corner(fields):
    return fields[:, 0, 0]


@custom_feature(formula="E_{T−1} − E_0", unit="u²", range="ℝ", exponent=2, min_timesteps=2)
def energy_gain(trajectories):
    energy = trajectories.square().mean((-2, -1))
    return energy[:, -1] - energy[:, 0]


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def spatial_mean(fields):
    return fields.mean((-2, -1))


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def one_for_all(fields):
    return fields.mean()


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def not_a_tensor(fields):
    return [0.0] * len(fields)


@custom_feature(formula="⟨u⟩", unit="u", range="ℝ", exponent=1)
def complex_number(fields):
    return fields[:, 0, 0] * 1j


@custom_feature(formula="1/s", unit="1/u", range="(0, ∞)", exponent=-1)
def inverse_std(fields):
    return 1 / fields.std((-2, -1), correction=0)


def undecorated(fields):
    return fields[:, 0, 0]


renamed = mean_modulus
