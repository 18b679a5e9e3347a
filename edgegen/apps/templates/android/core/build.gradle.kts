import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// Noise, tensors, pixels, manifest, golden images: no Android, so its tests run on any machine.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.toVersion(libs.versions.jvm.get())
    targetCompatibility = JavaVersion.toVersion(libs.versions.jvm.get())
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.fromTarget(libs.versions.jvm.get())
    }
}

dependencies {
    compileOnly(libs.json) // Android has these classes
    testImplementation(libs.json)
    testImplementation(kotlin("test"))
    testImplementation(platform(libs.junit.bom))
    testImplementation(libs.junit.jupiter)
    testRuntimeOnly(libs.junit.launcher)
}

tasks.test {
    useJUnitPlatform()
    val bundle = rootProject.layout.projectDirectory.dir("app/src/main/assets/bundle")
    inputs.dir(bundle)
    systemProperty("edgegen.bundle", bundle.asFile.path)
}
