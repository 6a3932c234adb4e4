# Needs Python >= 3.10 and make. Everything is installed into .venv; remove that folder to start afresh.
PYTHON ?= python3
JOBS ?= 2
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread each: the tests run side by side, and the figures of the demo are per core.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-report browser package-check docs lint results agents tuning curves

help:
	@echo 'make demo       install, score the published algorithms and the shipped agents, print a leaderboard'
	@echo 'make test       ruff, mypy and the tests (under 15 minutes on 2 cores)'
	@echo 'make test-slow  the longer studies'
	@echo 'make test-report  the HTML report in a headless browser (installs chromium if it is missing)'
	@echo 'make package-check  sdist and wheel, and the wheel alone in a fresh environment'
	@echo 'make docs       the documentation site in build/site'
	@echo 'make lint       ruff and mypy only'
	@echo 'make curves     fetch images, train and measure the transceivers again (about four hours)'
	@echo 'make tuning     the studies of hyper-parameters again (about an hour)'
	@echo 'make agents     train and ship the agents again (about two hours)'
	@echo 'make results    prove, score, draw and measure what docs/results holds again (about an hour and a half)'
	@echo
	@echo 'PYTHON=python3.12  the interpreter that .venv is made from (now: $(PYTHON))'
	@echo 'JOBS=4             test processes (now: $(JOBS))'
	@echo 'TORCH_INDEX=URL    an extra package index to take torch from, such as that of its CPU builds'

demo: $(VENV)/.all
	$(BIN)/semcom-gym solve SemCom/CRRA-v0 --method crra -n 5 --trace runs/demo
	$(BIN)/semcom-gym benchmark -n 50 --env SemCom/CRRA-v0 SemCom/CRRAUS-v0 SemCom/SFMA-v0 SemCom/ASCC-v0 SemCom/Training-v0 \
	--out results/demo
	$(BIN)/semcom-gym benchmark -n 50 --env SemCom/SFMAPairing-v0 --method equal channel_pairing price_matching \
	--out results/demo_pairing
	@echo 'How the published algorithm converges: $(BIN)/tensorboard --logdir runs'

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

test-slow: $(VENV)/.slow
	$(BIN)/python -m pytest -n $(JOBS) -m slow

CHROMIUM := chromium fonts-dejavu-core
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends $(CHROMIUM); } || \
	{ echo 'make test-report needs chromium; as root: apt-get install $(CHROMIUM)' >&2; exit 1; }

test-report: $(VENV)/.test browser
	$(BIN)/python -m pytest tests/browser_report.py

package-check: $(VENV)/.test
	@$(INSTALL) build
	$(BIN)/python -m pytest tests/package_check.py

# Warnings are errors, and a page that loads a script or a style from elsewhere is one.
docs: $(VENV)/.docs
	rm -rf build/site build/doctrees
	$(BIN)/python -m sphinx -c docs -b html -W --keep-going -q -d build/doctrees . build/site
	@! grep -rlE '(src|href)="(https?:)?//[^"]*\.(js|css)' build/site --include='*.html'

PROFILE := $(BIN)/semcom-gym profile
curves: $(VENV)/.all
	$(BIN)/semcom-gym data fetch
	$(PROFILE) deepjscc --images photos --tested photos samples --example tests/fixtures/images/coffee.png --out runs/deepjscc
	$(PROFILE) deepjscc --images photos --tested photos samples --out runs/deepjscc \
	--specialist 16 10 --specialist 10 4 --specialist 32 16 --train-images 250000
	$(PROFILE) classifier --backbone resnet --out runs/classifier_resnet
	$(PROFILE) classifier --backbone vgg --out runs/classifier_vgg
	$(PROFILE) digital --images photos --out runs/digital
	$(PROFILE) sfma --out runs/sfma --digital runs/digital/users.csv \
	--shown tests/fixtures/images/coffee.png tests/fixtures/images/cat.png
	$(PROFILE) ascc --out runs/ascc --analog runs/deepjscc/network.pt
	$(BIN)/semcom-gym rounds --devices 4 --rounds 300 --method fast equal_bandwidth --models own shared --out runs/rounds

SEEDS := 0 1 2
MORE_SEEDS := 3 4
TRAIN := $(BIN)/semcom-gym train --resume
comma := ,
space := $(subst ,, )
commas = $(subst $(space),$(comma),$(strip $(1)))
runs = $(foreach seed,$(SEEDS),runs/$(1)_seed$(seed))
all_runs = $(foreach seed,$(SEEDS) $(MORE_SEEDS),runs/$(1)_seed$(seed))

agents: $(VENV)/.all
	set -e; for seed in $(SEEDS); do \
	$(TRAIN) --env SemCom/CRRA-v0 --preset default --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/CRRA-v0 --preset hard --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/CRRAUS-v0 --preset select --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/SFMA-v0 --preset default --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/SFMA-v0 --preset tight --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/SFMA-v0 --preset measured --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/ASCC-v0 --preset default --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/ASCC-v0 --preset measured --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/Training-v0 --preset default --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/Training-v0 --preset measured --algo apg --seed $$seed; \
	$(TRAIN) --env SemCom/CRRA-v0 --algo ppo --seed $$seed; \
	$(TRAIN) --env SemCom/CRRA-v0 --algo a2c --seed $$seed; \
	$(TRAIN) --env SemCom/CRRA-v0 --algo sac --timesteps 50000 --seed $$seed; \
	$(TRAIN) --env SemCom/CRRAUS-v0 --algo ppo --seed $$seed; \
	$(TRAIN) --env SemCom/SFMA-v0 --algo ppo --seed $$seed; \
	$(TRAIN) --env SemCom/ASCC-v0 --algo ppo --seed $$seed; \
	$(TRAIN) --env SemCom/Training-v0 --algo ppo --seed $$seed; done
	set -e; for seed in $(MORE_SEEDS); do for id in CRRA CRRAUS SFMA ASCC Training; do \
	$(TRAIN) --env SemCom/$$id-v0 --algo apg --seed $$seed; done; done
	$(TRAIN) --env SemCom/CRRAFading-v0 --algo apg --timesteps 1200000
	$(TRAIN) --env SemCom/CRRAUSFading-v0 --algo apg --timesteps 300000
	$(TRAIN) --env SemCom/ASCCFading-v0 --algo apg --timesteps 30000
	$(TRAIN) --env SemCom/TrainingFading-v0 --algo apg --timesteps 60000
	$(TRAIN) --env SemCom/SFMAFading-v0 --algo apg
	$(TRAIN) --env SemCom/SFMAPairing-v0 --preset default --algo maskable_ppo
	$(TRAIN) --env SemCom/CRRA-v0 --algo tqc
	$(TRAIN) --env SemCom/CRRA-v0 --algo td3
	$(TRAIN) --env SemCom/CRRA-v0 --vary num_users=5,7,10,14,20,30,50 --vary max_bandwidth_hz=2.5e6,5e6,10e6 --vary max_power_w=5e-3,10e-3,20e-3
	$(TRAIN) --env SemCom/CRRAUS-v0 --vary num_users=5,7,10,14,20,30,50 --vary max_bandwidth_hz=2.5e6,5e6,10e6 --vary max_power_w=5e-3,10e-3,20e-3
	$(TRAIN) --env SemCom/ASCC-v0 --vary num_users=2,3,4,6 --vary max_power_w=3,6,12 --vary channel_uses=7e3,14e3,28e3
	$(TRAIN) --env SemCom/Training-v0 --vary num_users=5,7,10,14,20,30,50 --vary total_bandwidth_hz=5e6,10e6,20e6 --vary max_power_w=5e-3,10e-3,20e-3
	$(TRAIN) --env SemCom/ASCC-v0 --set rate_action=absolute --algo apg --out runs/ASCC-v0_absolute_apg_seed0
	$(BIN)/semcom-gym ship $(call all_runs,CRRA-v0_default_apg)
	$(BIN)/semcom-gym ship $(call runs,CRRA-v0_hard_apg)
	$(BIN)/semcom-gym ship $(call all_runs,CRRAUS-v0_select_apg)
	$(BIN)/semcom-gym ship $(call all_runs,SFMA-v0_default_apg) -n 100
	$(BIN)/semcom-gym ship $(call runs,SFMA-v0_tight_apg) -n 100
	$(BIN)/semcom-gym ship $(call runs,SFMA-v0_measured_apg) -n 100
	$(BIN)/semcom-gym ship runs/SFMAPairing-v0_default_maskable_ppo_seed0 -n 100
	$(BIN)/semcom-gym ship $(call all_runs,ASCC-v0_default_apg) -n 100
	$(BIN)/semcom-gym ship $(call runs,ASCC-v0_measured_apg) -n 100
	$(BIN)/semcom-gym ship $(call all_runs,Training-v0_default_apg) -n 100
	$(BIN)/semcom-gym ship $(call runs,Training-v0_measured_apg) -n 100
	$(BIN)/semcom-gym ship runs/CRRAFading-v0_default_apg_seed0 -n 100
	$(BIN)/semcom-gym ship runs/CRRAUSFading-v0_select_apg_seed0 -n 100 --scored 400
	$(BIN)/semcom-gym ship runs/ASCCFading-v0_default_apg_seed0 -n 20 --scored 20
	$(BIN)/semcom-gym ship runs/TrainingFading-v0_default_apg_seed0 -n 20 --scored 40
	$(BIN)/semcom-gym ship runs/SFMAFading-v0_default_apg_seed0 -n 100 --scored 40
	$(BIN)/semcom-gym ship runs/CRRA-v0_default_apg_varied_seed0
	$(BIN)/semcom-gym ship runs/CRRAUS-v0_select_apg_varied_seed0
	$(BIN)/semcom-gym ship runs/ASCC-v0_default_apg_varied_seed0 -n 100
	$(BIN)/semcom-gym ship runs/Training-v0_default_apg_varied_seed0 -n 100
	set -e; for run in runs/*_seed*; do mkdir -p docs/results/learning/$${run#runs/}; \
	cp $$run/run.json docs/results/learning/$${run#runs/}; done

# id, algorithm, trials, decisions of a trial
STUDIES := CRRA-v0,ppo,7,30000 CRRAUS-v0,ppo,5,20480 ASCC-v0,ppo,7,30000 Training-v0,ppo,6,30000 SFMA-v0,ppo,6,20000 \
CRRA-v0,a2c,6,40000 SFMAPairing-v0,maskable_ppo,4,6000
tuning: $(VENV)/.all
	set -e; for study in $(STUDIES); do set -- $$(echo $$study | tr , ' '); \
	$(BIN)/semcom-gym tune --env SemCom/$$1 --algo $$2 --trials $$3 --timesteps $$4 --evaluations 6 --seed 0 --out runs/tune_$$1_$$2; \
	mkdir -p docs/results/tuning/$$1_$$2; cp runs/tune_$$1_$$2/trials.csv docs/results/tuning/$$1_$$2/; done

BENCHMARK := $(BIN)/semcom-gym benchmark -n 200
SFMA := $(BIN)/semcom-gym benchmark -n 100 --env SemCom/SFMA-v0
ASCC := $(BIN)/semcom-gym benchmark -n 100 --env SemCom/ASCC-v0
TRAINING := $(BIN)/semcom-gym benchmark -n 100 --env SemCom/Training-v0
TRAINING_AGENTS = APG=$(call commas,$(call all_runs,Training-v0_default_apg))
results: $(VENV)/.all
	$(BENCHMARK) --prove --env SemCom/CRRA-v0 --preset default hard paper general
	$(BENCHMARK) --prove --env SemCom/CRRAUS-v0 --preset select
	$(BENCHMARK) --env SemCom/CRRA-v0 --preset default --refine 10 --out docs/results/crra_default \
	--agent APG=$(call commas,$(call all_runs,CRRA-v0_default_apg)) APG_varied=runs/CRRA-v0_default_apg_varied_seed0 \
	PPO=$(call commas,$(call runs,CRRA-v0_default_ppo)) A2C=$(call commas,$(call runs,CRRA-v0_default_a2c)) \
	SAC=$(call commas,$(call runs,CRRA-v0_default_sac)) TQC=runs/CRRA-v0_default_tqc_seed0 TD3=runs/CRRA-v0_default_td3_seed0
	$(BENCHMARK) --env SemCom/CRRA-v0 --preset hard --refine 10 --out docs/results/crra_hard \
	--agent APG=$(call commas,$(call runs,CRRA-v0_hard_apg))
	$(BENCHMARK) --env SemCom/CRRAUS-v0 --preset select --refine 10 --out docs/results/crraus_select \
	--agent APG=$(call commas,$(call all_runs,CRRAUS-v0_select_apg)) PPO=$(call commas,$(call runs,CRRAUS-v0_select_ppo)) \
	APG_varied=runs/CRRAUS-v0_select_apg_varied_seed0
	$(BENCHMARK) --env SemCom/CRRA-v0 --preset paper general --out docs/results/crra_other
	$(SFMA) --prove --preset default tight loose paper pruned measured figures
	$(SFMA) --preset default --refine 10 --out docs/results/sfma_default \
	--agent APG=$(call commas,$(call all_runs,SFMA-v0_default_apg)) PPO=$(call commas,$(call runs,SFMA-v0_default_ppo))
	$(SFMA) --preset tight --refine 10 --out docs/results/sfma_tight --agent APG=$(call commas,$(call runs,SFMA-v0_tight_apg))
	$(SFMA) --preset measured --refine 10 --out docs/results/sfma_measured --agent APG=$(call commas,$(call runs,SFMA-v0_measured_apg))
	$(SFMA) --preset loose paper pruned --out docs/results/sfma_other
	$(SFMA) --preset figures --out docs/results/sfma_figures
	$(BIN)/semcom-gym benchmark -n 100 --env SemCom/SFMAPairing-v0 --out docs/results/sfma_pairing \
	--method equal channel_pairing random_pairing price_matching fast --agent MaskablePPO=runs/SFMAPairing-v0_default_maskable_ppo_seed0
	$(ASCC) --prove --preset default hard two_user three_user paper measured
	$(ASCC) --preset default --refine 10 --search 10 --out docs/results/ascc_default \
	--agent APG=$(call commas,$(call all_runs,ASCC-v0_default_apg)) PPO=$(call commas,$(call runs,ASCC-v0_default_ppo)) \
	APG_varied=runs/ASCC-v0_default_apg_varied_seed0
	$(ASCC) --preset default --set rate_action=absolute --method equal_mmse --refine 10 --search 10 \
	--out docs/results/ascc_absolute --agent APG=runs/ASCC-v0_absolute_apg_seed0
	$(ASCC) --preset measured --refine 10 --search 10 --out docs/results/ascc_measured \
	--agent APG=$(call commas,$(call runs,ASCC-v0_measured_apg))
	$(ASCC) --preset hard two_user three_user paper --out docs/results/ascc_other
	$(TRAINING) --prove --preset default paper hard large measured
	$(TRAINING) --preset default --refine 10 --search 10 --out docs/results/training_default \
	--agent $(TRAINING_AGENTS) PPO=$(call commas,$(call runs,Training-v0_default_ppo)) \
	APG_varied=runs/Training-v0_default_apg_varied_seed0
	set -e; for users in 5 20 50; do $(TRAINING) --preset default --set num_users=$$users --refine 10 \
	--method equal_bandwidth paper fast --agent $(TRAINING_AGENTS) --out docs/results/training_users_$$users; \
	$(TRAINING) --preset default --set num_users=$$users --set total_bandwidth_hz=$${users}e6 --refine 10 \
	--method equal_bandwidth paper fast --agent $(TRAINING_AGENTS) --out docs/results/training_scaled_$$users; done
	$(TRAINING) --preset paper hard large --out docs/results/training_other
	$(TRAINING) --preset measured --refine 10 --search 10 --out docs/results/training_measured \
	--agent APG=$(call commas,$(call runs,Training-v0_measured_apg)) APG_of_default=$(call commas,$(call all_runs,Training-v0_default_apg))
	$(BIN)/semcom-gym benchmark SemCom/CRRAFading-v0 --episodes 100 --out docs/results/fading_crra
	$(BIN)/semcom-gym benchmark SemCom/CRRAUSFading-v0 SemCom/SFMAFading-v0 SemCom/ASCCFading-v0 SemCom/TrainingFading-v0 --episodes 20 \
	--out docs/results/fading_others
	$(BIN)/semcom-gym generalise SemCom/CRRA-v0 SemCom/CRRAUS-v0 SemCom/SFMA-v0 SemCom/ASCC-v0 SemCom/Training-v0 \
	-n 20 --refine 10 --out docs/results/generalise --agent \
	$(foreach name,CRRA-v0_default CRRAUS-v0_select SFMA-v0_default ASCC-v0_default Training-v0_default,APG=$(call commas,$(call runs,$(name)_apg))) \
	$(foreach name,CRRA-v0_default CRRAUS-v0_select ASCC-v0_default Training-v0_default,APG_varied=runs/$(name)_apg_varied_seed0)
	$(BIN)/semcom-gym figures crra --out docs/results/figures/crra
	$(BIN)/semcom-gym figures sfma --slow 20 --out docs/results/figures/sfma
	$(BIN)/semcom-gym figures sfma --preset tight --slow 10 --out docs/results/figures/sfma_tight
	$(BIN)/semcom-gym figures sfma --preset figures --slow 20 --out docs/results/figures/sfma_figures
	$(BIN)/semcom-gym figures ascc --out docs/results/figures/ascc
	$(BIN)/semcom-gym figures training --bound --out docs/results/figures/training
	$(BIN)/semcom-gym speed --out docs/results/speed.json

lint: $(VENV)/.test
	$(BIN)/ruff check
	@mkdir -p .typing && ln -sfn .. .typing/semcom_gym
	$(BIN)/mypy

$(VENV)/.python: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else \
	"semcom-gym needs Python >= 3.10, %s is %d.%d; try: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	@echo 'Installing into $(VENV); the first time takes minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.all: $(VENV)/.python setup.cfg pyproject.toml
	@$(INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.python setup.cfg pyproject.toml
	@$(INSTALL) -e '.[all,test]'
	@touch $@ $(VENV)/.all

# Ray and Dask, whose clusters the longer studies start on this machine.
$(VENV)/.slow: $(VENV)/.test
	@$(INSTALL) -e '.[all,test,ray,dask]' dask-jobqueue
	@touch $@

$(VENV)/.docs: $(VENV)/.python setup.cfg pyproject.toml
	@$(INSTALL) -e '.[all,docs]'
	@touch $@ $(VENV)/.all
