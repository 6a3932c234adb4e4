"""Deep joint source-channel coding: the network, its training, the measured PSNR surface and its fit."""
