//! A list of cells, built and summed by recursion 100,000 frames deep, beside collections.
use stackmark::mark_sweep::Descriptor;
use stackmark_cranelift::{Engine, INT, InstBuilder, REF, Settings, types::I64};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::new(Settings::default())?;
    // A cell is a number and a reference.
    let cell = engine.heap().register(Descriptor::pattern(2, [1])?)?;
    let mut module = engine.module()?;
    let build = module.declare("build", &[INT], &[REF])?;
    let sum = module.declare("sum", &[REF], &[INT])?;
    let main = module.declare("main", &[INT], &[INT])?;
    // build(n) = if n == 0 { nil } else { cell(n, build(n - 1)) }
    module.define(build, |f| {
        let (n, nil) = (f.param(0), f.int(0));
        let (more, last) = (f.create_block(), f.create_block());
        f.ins().brif(n, more, &[], last, &[]);
        f.switch_to_block(last);
        f.return_(&[nil])?;
        f.switch_to_block(more);
        let less = f.ins().iadd_imm_s(n, -1);
        let rest = f.call(build, &[less])?[0];
        let object = f.allocate(cell, 16);
        f.store_plain(n, object, 0);
        f.store_reference(rest, object, 8);
        f.return_(&[object])
    })?;
    // sum(list) = if list == nil { 0 } else { sum(list.rest) + list.number }
    module.define(sum, |f| {
        let (list, zero) = (f.param(0), f.int(0));
        let (more, last) = (f.create_block(), f.create_block());
        f.ins().brif(list, more, &[], last, &[]);
        f.switch_to_block(last);
        f.return_(&[zero])?;
        f.switch_to_block(more);
        let rest = f.load_reference(list, 8);
        let others = f.call(sum, &[rest])?[0];
        let number = f.load_plain(I64, list, 0);
        let total = f.ins().iadd(others, number);
        f.return_(&[total])
    })?;
    module.define(main, |f| {
        let list = f.call(build, &[f.param(0)])?[0];
        let total = f.call(sum, &[list])?;
        f.return_(&total)
    })?;
    module.export(main)?;
    // SAFETY: the three functions keep the contracts, whatever `main` is given.
    let program = unsafe { engine.finish(module) }?;
    let total = std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| engine.collector().collect()));
        engine.run(&program, main, 100_000)
    })?;
    println!("the sum is {total}\n{:#?}", engine.collector().statistics().heap);
    Ok(())
}
