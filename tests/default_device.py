"""What would run on a GPU makes all its tensors there: nothing on the default device, which holds nothing here."""

import pytest


@pytest.fixture
def empty_default_device(monkeypatch):
    """Losses of the transceivers run with a default device without memory, where a tensor made by mistake is found."""
    torch = pytest.importorskip("torch")
    from semcom_gym.transceivers import channel, train

    step, linear = train._step, channel.db_to_linear

    def from_the_host(value_db):
        """One number, which is moved where the symbols are."""
        with torch.device("cpu"):
            return linear(value_db)

    def watched(network, optimizer, rate, settings, number, sample, loss, generator, where):
        def inside(*arguments):
            with torch.device("meta"):
                return loss(*arguments)

        return step(network, optimizer, rate, settings, number, sample, inside, generator, where)

    monkeypatch.setattr(channel, "db_to_linear", from_the_host)
    monkeypatch.setattr(train, "_step", watched)
